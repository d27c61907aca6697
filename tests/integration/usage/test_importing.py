"""Imports into a running service: what is in a file is what is counted, once, and a dry run sends nothing."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sys
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tenantry.testing import eventually
from tenantry_dev.oracle.quantities import llm_usage, log_usage
from tenantry_dev.sample.generator import generate_llm, generate_log
from usage_service.commands._api import Api, Credentials
from usage_service.commands._files import Source
from usage_service.commands._importing import AT_ONCE, import_lines
from usage_service.commands._ingest import Ingest
from usage_service.commands._mapping import Column, RowMapping, TenantRule
from usage_service.commands._progress import Journal, Tally, Telling
from usage_service.commands._readers import read_access_log, read_csv, read_dead_letters

from .support import API_CALLS, BANDWIDTH, end_offsets, event

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("TENANTRY_TRACES", REPOSITORY.parent / "shared" / "data"))
LOG, LLM = FOLDER / "access_log.gz", FOLDER / "llm_trace_code.csv"
TOKENS = {"event_type": "llm.request", "aggregation": "sum", "value": "$.input_tokens"}
ACCESS = tuple(Column(name, name) for name in ("method", "path", "status", "bytes"))
COLUMNS = (
    Column("input_tokens", "ContextTokens", "integer"),
    Column("output_tokens", "GeneratedTokens", "integer"),
)
EVER = {"from": "2000-01-01T00:00:00Z", "to": "2030-01-01T00:00:00Z"}


class ApiWithKey(Api):
    """Whose token is an API key: no tenant service is there."""

    def __init__(self, usage) -> None:
        super().__init__(usage.http, Credentials("http://usage.test", "", "", ""))
        self.key = usage.operator["Authorization"].removeprefix("Bearer ")

    async def _bearer(self) -> str:
        return self.key


async def run(usage, source, reads, tmp_path, **options) -> Tally:
    tally = Tally()
    telling, journal = Telling(source, as_json=False), Journal(source, [], directory=tmp_path)
    await import_lines(reads, Ingest(ApiWithKey(usage), **options), tally, telling, journal, first=0, at_once=AT_ONCE)
    return tally


def mapping(tenant, kind: str, **changes) -> RowMapping:
    rule = tenant if isinstance(tenant, TenantRule) else TenantRule(tenant=str(tenant.id))
    return RowMapping(tenant=rule, type=kind, source="import", time="time", **changes)


async def value(usage, tenant, slug: str) -> int:
    items = (await usage.query(tenant, slug, **EVER))["items"]
    return sum(int(item["value"] or 0) for item in items)


async def in_kafka(usage) -> int:
    return sum((await end_offsets(usage.kafka, "usage.events.v1")).values())


def expected(usage_by_month) -> Counter[str]:
    return sum(usage_by_month.values(), Counter())


@pytest.fixture(params=["generated", "real"])
def log(request, tmp_path) -> Path:
    if request.param == "real":
        if not LOG.is_file():
            pytest.skip(f"no {LOG} (TENANTRY_TRACES)")
        return LOG
    generate_log(tmp_path / "log.gz", lines=1_200)
    return tmp_path / "log.gz"


@pytest.fixture(params=["generated", "real"])
def llm(request, tmp_path) -> Path:
    if request.param == "real":
        if not LLM.is_file():
            pytest.skip(f"no {LLM} (TENANTRY_TRACES)")
        return LLM
    generate_llm(tmp_path / "llm.csv.gz", rows=1_200)
    return tmp_path / "llm.csv.gz"


async def test_an_access_log_counts_as_the_oracle_counts_it_however_often_it_is_imported(
    usage, tenant_a, tmp_path, log
):
    await usage.put_meter("api-calls", {**API_CALLS, "group_by": {}})
    await usage.put_meter("bandwidth", BANDWIDTH)
    wanted = expected(log_usage(log))
    async with usage.metering():
        for _ in range(2):
            source = Source.of(log, log.name)
            wished = mapping(tenant_a, "http.request", columns=ACCESS)
            tally = await run(usage, source, read_access_log(source, wished), tmp_path, accept_late=True)
            assert (tally.accepted, tally.refused.total()) == (wanted["requests"], 0)
            assert tally.lines == tally.accepted + tally.skipped.total()
        await eventually(usage.counted, within=120)
    assert await in_kafka(usage) == 2 * wanted["requests"]
    counted = {
        "requests": await value(usage, tenant_a, "api-calls"),
        "bytes": await value(usage, tenant_a, "bandwidth"),
    }
    assert counted == dict(wanted)


async def test_a_csv_counts_as_the_oracle_counts_it(usage, tenant_a, tenant_b, tmp_path, llm):
    """Two tenants by a column that stands for them through a map."""
    await usage.put_meter("tokens", TOKENS)
    wanted = expected(llm_usage(llm))
    source = Source.of(llm, llm.name)
    rule = TenantRule(column="GeneratedTokens", table=_by_parity(tenant_a, tenant_b))
    wished = RowMapping(tenant=rule, type="llm.request", source="import", time="TIMESTAMP", columns=COLUMNS)
    async with usage.metering():
        tally = await run(usage, source, read_csv(source, wished, delimiter=","), tmp_path, accept_late=True)
        assert (tally.accepted, tally.refused, tally.skipped) == (wanted["requests"], Counter(), Counter())
        await eventually(usage.counted, within=120)
    shares = [await value(usage, tenant, "tokens") for tenant in (tenant_a, tenant_b)]
    assert all(shares)
    assert sum(shares) == wanted["input"]


async def test_a_dry_run_says_what_would_be_refused_and_leaves_nothing_behind(usage, tenant_a, tmp_path):
    file, now = tmp_path / "f.csv", datetime.now(UTC)
    long_ago, soon = now - timedelta(days=60), now + timedelta(hours=1)
    rows = [(now, tenant_a.id), (long_ago, tenant_a.id), (soon, tenant_a.id), (now, "nobody")]
    with file.open("w", newline="") as text:
        csv.writer(text).writerows([("time", "whose"), *((time.isoformat(), whose) for time, whose in rows)])
    source = Source.of(file, file.name)
    wished = mapping(TenantRule(column="whose"), "http.request")
    tally = await run(usage, source, read_csv(source, wished, delimiter=","), tmp_path, dry_run=True)
    assert (tally.accepted, dict(tally.refused)) == (
        1,
        {
            "time: is older than events may be": 1,
            "time: lies more than 10 minutes in the future": 1,
            "subject: names no tenant": 1,
        },
    )
    assert await in_kafka(usage) == 0
    assert await usage.fetch("SELECT 1 FROM pool.dead_letter") == []
    # Without it the late one is kept.
    assert (await run(usage, source, read_csv(source, wished, delimiter=","), tmp_path)).accepted == 1
    assert (await in_kafka(usage), len(await usage.fetch("SELECT 1 FROM pool.dead_letter"))) == (1, 1)


async def test_dead_letters_that_were_put_right_come_back_from_a_file(usage, tenant_a, tmp_path):
    await usage.put_meter("bandwidth", BANDWIDTH)
    long_ago = (datetime.now(UTC) - timedelta(days=60)).isoformat()
    await usage.send(*(event(tenant_a, n, time=long_ago) for n in range(3)))
    listed = (await usage.http.get("/v1/dead-letters", headers=usage.operator)).json()["items"]
    assert len(listed) == 3
    file = tmp_path / "letters.jsonl"
    file.write_text("\n".join(json.dumps(letter).replace('\\"bytes\\": 10', '\\"bytes\\": 7') for letter in listed))
    source = Source.of(file, file.name)
    async with usage.metering():
        tally = await run(usage, source, read_dead_letters(source), tmp_path, accept_late=True)
        await eventually(usage.counted, within=60)
    assert tally.accepted == 3
    assert await value(usage, tenant_a, "bandwidth") == 21


async def test_the_command_itself_with_a_token_over_a_socket(usage, tenant_a, tmp_path):
    await usage.put_meter("calls", API_CALLS)
    token = usage.operator["Authorization"].removeprefix("Bearer ")

    async def tokens(request: Request) -> JSONResponse:
        form = parse_qs((await request.body()).decode())
        known = form == {
            "grant_type": ["client_credentials"], "client_id": ["me"], "client_secret": ["s"], "audience": ["usage"],
        }  # fmt: skip
        return JSONResponse({"access_token": token, "expires_in": 600}, 200 if known else 401)

    log = tmp_path / "access.log"
    line = '192.0.2.7 - - [{:%d/%b/%Y:%H:%M:%S} +0000] "GET /a HTTP/1.1" 200 5'
    log.write_text("\n".join(line.format(datetime.now(UTC)) for _ in range(700)) + "\nnonsense\n")
    authority = Starlette(routes=[Route("/oauth/token", tokens, methods=["POST"])])
    async with served(usage.http._transport.app) as usage_url, served(authority) as tenant_url, usage.metering():
        environment = os.environ | {
            "TENANTRY_USAGE_URL": usage_url, "TENANTRY_TENANT_URL": tenant_url,
            "TENANTRY_CLIENT_ID": "me", "TENANTRY_CLIENT_SECRET": "s",
        }  # fmt: skip
        command = ["usage", "import", "access-log", "-", "--tenant", str(tenant_a.id), "--json"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from tenantry.cli import main; main()", *command),
            cwd=tmp_path,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, said = await process.communicate(log.read_bytes())
        assert process.returncode == 0, said.decode()
        await eventually(usage.counted, within=60)
    summary = json.loads(output.splitlines()[-1])
    assert (summary["sent"], summary["accepted"], summary["refused"]) == (700, 700, {})
    assert summary["skipped"] == {"request, status or size cannot be read": 1}
    assert await value(usage, tenant_a, "calls") == 700
    assert not list(tmp_path.glob(".tenantry/imports/*"))


@asynccontextmanager
async def served(app):
    """An application on a port of this machine; its lifespan is the fixture's."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await task


def _by_parity(even, odd) -> dict[str, str]:
    return {str(n): str((even, odd)[n % 2].id) for n in range(100_000)}

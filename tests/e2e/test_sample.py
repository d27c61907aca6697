"""The sample run on processes, resumed after a kill: three patterns, two traces, copies, live traffic, invoices."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
from rich.console import Console

from tenantry_dev.demo.comparison import compare_invoices, compare_live, compare_usage, show
from tenantry_dev.oracle import expected_invoices
from tenantry_dev.run.settings import SERVICES
from tenantry_dev.run.system import System
from tenantry_dev.sample.api import Apis
from tenantry_dev.sample.flow import SampleRun, run_sample
from tenantry_dev.sample.record import Record
from tenantry_dev.sample.traces import Trace


async def test_invoices_usage_and_live_traffic_equal_the_oracle(
    sample: SampleRun, traces: list[Trace], operator: Apis
) -> None:
    paths = {trace.kind: trace.path for trace in traces}
    expected = expected_invoices(paths["log"], paths["llm"])
    checks = [
        *compare_invoices(expected, sample.invoices, sample.tenants),
        *await compare_usage(operator.usage, expected, sample.tenants),
        *await compare_live(operator.usage, sample.live, sample.tenants, sample.clock),
    ]
    assert all(replayed.copies > 20 for replayed in sample.replayed.values())
    assert show(Console(), checks)


async def test_tenants_are_spread_over_the_three_patterns(sample: SampleRun, operator: Apis) -> None:
    placed = Counter[str]()
    for tenant in sample.tenants:
        shown = await operator.tenant.get(f"/v1/tenants/{tenant.id}")
        assert shown["status"] == "active"
        placed[shown["placement"]["isolation"]] += 1
    assert placed == {"pool": 8, "schema": 3, "database": 1}


def test_a_second_run_gives_the_same_invoices(system: System, sample: SampleRun, traces: list[Trace]) -> None:
    again = asyncio.run(run_sample(system, Record(system.home), traces, Console(quiet=True)))

    assert [tenant.id for tenant in again.tenants] == [tenant.id for tenant in sample.tenants]
    assert again.invoices == sample.invoices


def test_every_service_serves_health_documentation_and_metrics(system: System) -> None:
    for service in SERVICES:
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/metrics"):
            answer = httpx.get(f"{system.addresses.url(service)}{path}", timeout=10, trust_env=False)
            assert answer.status_code == 200, (service, path)


def test_the_operators_file_is_closed_and_complete(system: System) -> None:
    from tenantry_dev.home import read_json  # noqa: PLC0415

    path = system.home.operator_file
    document = read_json(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert document.keys() == {"client_id", "client_secret", "urls", "postgres", "kafka", "kafka_login"}
    assert document["urls"].keys() == set(SERVICES)


async def test_the_sign_in_address_opens_the_console_once(system: System, operator: Apis) -> None:
    billing = system.addresses.url("billing")
    url = (await operator.tenant.post("/v1/sign-in-codes", {"next": f"{billing}/console"}))["url"]
    code = httpx.URL(url).params["code"]
    async with httpx.AsyncClient(timeout=10, trust_env=False) as browser:
        assert (await browser.get(f"{billing}/console")).status_code in {303, 401}
        form = {"code": code, "next": f"{billing}/console"}
        signed_in = await browser.post(f"{system.addresses.url('tenant')}/signin", data=form)
        assert signed_in.status_code == 303
        assert signed_in.headers["location"] == f"{billing}/console"
        cookie = signed_in.headers["set-cookie"].split(";")[0]
        for _ in range(100):
            page = await browser.get(f"{billing}/console", headers={"Cookie": cookie})
            if page.status_code == 200:
                break
            await asyncio.sleep(0.05)
        assert page.status_code == 200
        again = await browser.post(f"{system.addresses.url('tenant')}/signin", data=form)
        assert again.status_code == 401

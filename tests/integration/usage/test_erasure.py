"""Erasing one person: nothing of them is left, and every figure is what it was, but for a label."""

from __future__ import annotations

import hmac
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from broker import read_topic
from obstore.store import LocalStore

from tenantry import SystemClock
from tenantry.cli import CommandFailed
from tenantry.identity import Scope
from tenantry.testing import eventually
from usage_service.archive.archivist import Archivist
from usage_service.archive.reading import ArchiveReader
from usage_service.archive.store import ArchiveStore
from usage_service.commands._api import Api, Credentials
from usage_service.commands.erasures import _erase
from usage_service.corrections.archived import ArchivedCorrections
from usage_service.erasure.worker import ErasureWorker

from .support import event, running

START = (datetime.now(UTC) - timedelta(days=2)).replace(hour=10, minute=0, second=0, microsecond=0)
WHOLE = {"from": START.isoformat(), "to": (START + timedelta(hours=3)).isoformat()}
RAGGED = {
    "from": (START + timedelta(minutes=7)).isoformat(),
    "to": (START + timedelta(hours=2, minutes=20)).isoformat(),
}
BY_USER = {"event_type": "http.request", "group_by": {"user": "$.user", "plan": "$.plan"}}
METERS: dict[str, dict[str, Any]] = {
    "calls": {**BY_USER, "aggregation": "count"},
    "volume": {**BY_USER, "aggregation": "sum", "value": "$.bytes"},
    "largest": {**BY_USER, "aggregation": "max", "value": "$.bytes"},
    "last": {**BY_USER, "aggregation": "latest", "value": "$.bytes"},
    "weighted": {**BY_USER, "aggregation": "time_weighted", "value": "$.bytes"},
    "users": {"event_type": "http.request", "aggregation": "unique_count", "value": "$.user"},
    "users-by-plan": {**BY_USER, "aggregation": "unique_count", "value": "$.user"},
}
ALICE, MAIL = "alice", "alice@example.com"


def data_of(number: int) -> dict[str, Any]:
    user = (ALICE, "bob", MAIL, "carol")[number % 4]
    return {"user": user, "plan": "ab"[number % 2], "bytes": 10 + number, "seen": [{"by": ALICE}]}


def events(tenant, numbers=range(40)) -> list[dict[str, Any]]:
    return [
        event(tenant, number, time=(START + timedelta(minutes=4 * number)).isoformat(), data=data_of(number))
        for number in numbers
    ]


@pytest.fixture
async def counted(usage, tenant_a, tenant_b, tmp_path):
    """Two tenants with the same people, counted by meters of every aggregation; an archive of their own."""
    usage.archive = ArchiveStore(LocalStore(tmp_path), tmp_path)
    for slug, definition in METERS.items():
        await usage.put_meter(slug, definition)
    async with usage.metering():
        for tenant in (tenant_a, tenant_b):
            assert (await usage.send(*events(tenant))).status_code == 202
        await eventually(usage.counted, within=60)
    return usage


def worker(usage, clock=None) -> ErasureWorker:
    engine = usage.databases.system
    archived = ArchivedCorrections(engine, ArchiveReader(usage.databases, usage.archive))
    return ErasureWorker(engine, usage.archive, Archivist(engine, usage.archive), archived, clock or SystemClock())


async def ask(usage, tenant, *, headers=None, **body):
    asked = {"tenant_id": str(tenant.id), "values": [ALICE, MAIL], **body}
    return await usage.http.post("/v1/erasures", json=asked, headers=headers or usage.operator)


async def report(usage, erasure_id: str) -> dict[str, Any]:
    response = await usage.http.get(f"/v1/erasures/{erasure_id}", headers=usage.operator)
    assert response.status_code == 200, response.text
    return response.json()


async def finish(usage, erasure_id: str) -> dict[str, Any]:
    """Works until the erasure is done; what was asked before is counted, since no meter worker is behind."""
    await usage.fetch("UPDATE system.partition_progress SET received_until = clock_timestamp() + interval '1 hour'")
    working = worker(usage)

    async def done() -> bool:
        while await working.turn():
            pass
        return (await report(usage, erasure_id))["state"] == "done"

    await eventually(done, within=60)
    return await report(usage, erasure_id)


async def figures(usage, tenant, span, **params) -> dict[str, list[tuple[str, str]]]:
    """The figures of all meters, with groups told apart but not named."""
    found = {}
    for slug, definition in METERS.items():
        grouped = {"group_by": list(definition["group_by"])} if "group_by" in definition else {}
        answer = await usage.query(tenant, slug, **span, window="hour", **grouped, **params)
        found[slug] = sorted((item["window_start"], item["value"]) for item in answer["items"])
    return found


async def everything(usage, tenant) -> str:
    """Whatever PostgreSQL has of a tenant in the tables that events reach."""
    tables = ("usage_event", "usage_rollup", "usage_unique_value", "dead_letter", "correction", "erasure")
    rows = [
        (table, dict(row))
        for table in tables
        for row in await usage.fetch(f"SELECT * FROM pool.{table} WHERE tenant_id = $1", tenant.id)
    ]
    return repr(rows)


async def test_nothing_is_left_and_every_figure_is_what_it_was(counted, tenant_a, tenant_b):
    usage = counted
    before = {name: await figures(usage, tenant_a, span) for name, span in {"whole": WHOLE, "ragged": RAGGED}.items()}
    others = await everything(usage, tenant_b)
    asked = await ask(usage, tenant_a)
    assert asked.status_code == 202, asked.text
    assert asked.json()["state"] == "waiting"
    done = await finish(usage, asked.json()["id"])
    assert ALICE not in await everything(usage, tenant_a)
    assert await everything(usage, tenant_b) == others
    for name, span in {"whole": WHOLE, "ragged": RAGGED}.items():
        assert await figures(usage, tenant_a, span) == before[name]
    # Every event has the one value in `seen`.
    assert done["rows"]["usage_event"] == 40
    assert done["rows"]["usage_rollup"] > 20
    assert done["rows"]["usage_unique_value"] > 6
    assert ALICE not in json.dumps(done)
    salt = bytes.fromhex(done["salt"])
    assert [each["hash"] for each in done["values"]] == [
        hmac.digest(salt, value.encode(), "sha256").hex() for value in (ALICE, MAIL)
    ]
    assert {each["what"] for each in done["kept"]} > {
        "topic usage.events.v1",
        "invoices and their lines, and the ledger",
    }


async def test_what_is_counted_anew_is_what_is_stored(counted, tenant_a):
    """A sample out of order after the erasure makes hours anew from their erased events."""
    usage = counted
    done = await finish(usage, (await ask(usage, tenant_a)).json()["id"])
    assert done["state"] == "done"
    [[pseudonym]] = await usage.fetch(
        "SELECT data::jsonb ->> 'user' FROM pool.usage_event WHERE tenant_id = $1 AND event_id = 'e-0'", tenant_a.id
    )
    late = {**data_of(0), "user": pseudonym, "plan": "a", "bytes": 1}
    async with usage.metering():
        sent = event(tenant_a, 1_000, time=(START + timedelta(minutes=1)).isoformat(), data=late)
        assert (await usage.send(sent)).status_code == 202
        await eventually(usage.counted, within=60)
    for slug in ("calls", "volume", "last", "weighted", "users"):
        grouped = {"group_by": ["user", "plan"]} if "group_by" in METERS[slug] else {}
        hours = await usage.query(tenant_a, slug, **WHOLE, window="hour", **grouped)
        # All of it read from raw events, by a filter that rollups cannot answer.
        if slug != "weighted":
            raw = await usage.query(tenant_a, slug, **WHOLE, window="hour", **grouped, **{"filter[$.bytes][gte]": "0"})
            assert [(i["group"], i["value"]) for i in raw["items"]] == [
                (i["group"], i["value"]) for i in hours["items"]
            ]
    row = await usage.fetch(
        "SELECT count FROM pool.usage_rollup JOIN system.meter ON id = meter_id"
        " WHERE slug = 'weighted' AND tenant_id = $1 AND groups LIKE '%' || $2 || '%' AND window_start = $3",
        tenant_a.id,
        pseudonym,
        START,
    )
    assert [each["count"] for each in row] == [5]


async def test_a_copy_that_comes_late_is_a_copy_and_no_conflict(counted, tenant_a):
    usage = counted
    await finish(usage, (await ask(usage, tenant_a, attributes=True)).json()["id"])
    async with usage.metering():
        assert (await usage.send(*events(tenant_a))).status_code == 202
        await eventually(usage.counted, within=60)
    [[stored]] = await usage.fetch("SELECT count(*) FROM pool.usage_event WHERE tenant_id = $1", tenant_a.id)
    assert stored == 40
    assert await usage.fetch("SELECT FROM pool.dead_letter") == []
    assert ALICE not in await everything(usage, tenant_a)


async def test_what_was_published_is_withdrawn_and_published_under_the_label(counted, tenant_a):
    usage = counted

    async def published():
        """What the topic says, once it says it of every rollup: a record shows some time after its commit."""
        if await usage.fetch("SELECT FROM system.rollup_change"):
            return None
        records = {record.key: record.value for record in await read_topic(usage.kafka, "usage.rollups.v1")}
        [[rollups]] = await usage.fetch("SELECT count(*) FROM pool.usage_rollup")
        return records if sum(value is not None for value in records.values()) == rollups else None

    async with usage.relaying():
        before = await eventually(published, within=60)
        await finish(usage, (await ask(usage, tenant_a)).json()["id"])
        after = await eventually(published, within=60)
    named = {key for key, value in before.items() if ALICE.encode() in value and str(tenant_a.id).encode() in key}
    assert named
    assert {key for key, value in after.items() if value is None} == named
    new = [msgspec.json.decode(after[key]) for key in after.keys() - before.keys()]
    assert len(new) == len(named)
    old = [msgspec.json.decode(before[key]) for key in named]

    def places(records):
        return sorted((r["meter"], r["window_start"], r["group"]["plan"], r["count"], str(r["sum"])) for r in records)

    assert places(new) == places(old)


async def test_letters_lose_what_they_quote(counted, tenant_a):
    usage = counted
    bad = {**data_of(0), "bytes": ALICE}
    conflicting = {**data_of(1), "user": ALICE, "bytes": 5_000}
    async with usage.metering():
        moment = (START + timedelta(minutes=3)).isoformat()
        await usage.send(event(tenant_a, 500, time=moment, data=bad), event(tenant_a, 1, time=moment, data=conflicting))
        await usage.produce([b'{"subject":"' + str(tenant_a.id).encode() + b'","user":"alice'], [tenant_a.id])
        await eventually(usage.counted, within=60)
    letters = await usage.fetch("SELECT kind FROM pool.dead_letter")
    assert {row["kind"] for row in letters} == {"invalid-value", "conflict", "undecodable"}
    done = await finish(usage, (await ask(usage, tenant_a)).json()["id"])
    assert done["rows"]["dead_letter"] == len(letters)
    left = await usage.fetch("SELECT reason, payload FROM pool.dead_letter")
    assert ALICE not in repr([tuple(row) for row in left])


async def test_a_letter_whose_id_was_erased_is_not_replayed(counted, tenant_a):
    """It would be another event than its copies."""
    usage = counted
    late = event(tenant_a, 1, id=ALICE, time="2020-01-01T00:00:00Z")
    assert (await usage.send(late)).status_code == 400
    done = await finish(usage, (await ask(usage, tenant_a, attributes=True)).json()["id"])
    assert done["rows"]["dead_letter"] == 1
    [[letter]] = await usage.fetch("SELECT id FROM pool.dead_letter")
    replayed = await usage.http.post(f"/v1/dead-letters/{letter}/replay", headers=usage.operator)
    assert replayed.status_code == 409
    assert "erased" in replayed.json()["detail"]


async def test_what_comes_after_is_new_data(counted, tenant_a):
    usage = counted
    asked = (await ask(usage, tenant_a)).json()
    await finish(usage, asked["id"])
    async with usage.metering():
        moment = (START + timedelta(minutes=3)).isoformat()
        await usage.send(event(tenant_a, 600, time=moment, data=data_of(0)))
        await eventually(usage.counted, within=60)
    stored = await usage.fetch("SELECT data FROM pool.usage_event WHERE event_id = 'e-600'")
    assert ALICE in stored[0]["data"]
    again = await finish(usage, (await ask(usage, tenant_a)).json()["id"])
    assert again["rows"]["usage_event"] == 1


async def test_it_waits_for_what_is_received_and_not_counted(counted, tenant_a):
    usage = counted
    await usage.fetch("UPDATE system.partition_progress SET received_until = clock_timestamp() - interval '1 hour'")
    asked = (await ask(usage, tenant_a)).json()
    assert await worker(usage).turn()
    assert (await report(usage, asked["id"]))["state"] == "waiting"
    assert (await finish(usage, asked["id"]))["state"] == "done"


async def test_who_may_ask(counted, tenant_a, tenant_b):
    usage = counted
    admin = usage.state.key(Scope.TENANT_ADMIN, tenant=tenant_a)
    assert (await ask(usage, tenant_a, headers=usage.tenant_key(tenant_a))).status_code == 403
    assert (await ask(usage, tenant_a, headers=usage.service)).status_code == 403
    assert (await ask(usage, tenant_b, headers=admin)).status_code == 404
    mine = await ask(usage, tenant_a, headers=admin)
    assert mine.status_code == 202
    theirs = (await ask(usage, tenant_b)).json()
    assert (await usage.http.get(f"/v1/erasures/{theirs['id']}", headers=admin)).status_code == 404
    listed = (await usage.http.get("/v1/erasures", headers=admin)).json()["items"]
    assert [each["id"] for each in listed] == [mine.json()["id"]]
    assert len((await usage.http.get("/v1/erasures", headers=usage.operator)).json()["items"]) == 2


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ({"values": ["42"]}, 422, "values"),
        ({"values": []}, 422, "values"),
        ({"values": ["__other__"]}, 422, "values"),
        ({"paths": ["user"]}, 422, "paths"),
        ({"paths": ["$.bytes"]}, 422, "paths"),
        ({"tenant_id": "nobody"}, 404, None),
        ({"tenant_id": None}, 422, "tenant_id"),
    ],
)
async def test_what_cannot_be_asked(counted, tenant_a, body, status, place):
    response = await ask(counted, tenant_a, **body)
    assert response.status_code == status, response.text
    assert place is None or place in str(response.json()["errors"])


async def test_a_filter_that_names_the_person_is_told(counted, tenant_a):
    usage = counted
    await usage.put_meter("not-alice", {**METERS["calls"], "filter": {"$.user": {"ne": ALICE}}})
    refused = await ask(usage, tenant_a)
    assert (refused.status_code, refused.json()["type"].rsplit("/", 1)[-1]) == (409, "figures-would-differ")
    assert "not-alice" in refused.json()["detail"]
    accepted = await ask(usage, tenant_a, accept_differing_figures=True)
    assert accepted.json()["differing_meters"] == ["not-alice"]


@pytest.mark.parametrize("audit", [{"entries": 3}, None])
async def test_the_command_follows_it_to_its_end(counted, tenant_a, monkeypatch, audit):
    usage = counted
    await usage.fetch("UPDATE system.partition_progress SET received_until = clock_timestamp() + interval '1 hour'")

    @asynccontextmanager
    async def connected(service="usage"):
        yield Asked(usage) if service == "usage" else Trail(audit)

    monkeypatch.setattr("usage_service.commands.erasures.connect", connected)
    body = {"tenant_id": str(tenant_a.id), "values": [ALICE], "paths": ["$.user"]}
    async with running(worker(usage).run()):
        done = await _erase(body, None, wait=True)
    assert (done["state"], done["rows"]["usage_event"]) == ("done", 10)
    assert done.pop("audit") == (audit or {"problem": "not yours to ask"})
    assert (await _erase(None, UUID(done["id"]), wait=True)) == done


class Trail:
    """The tenant service as far as its audit trail goes; without an answer it refuses."""

    def __init__(self, answer: dict[str, Any] | None) -> None:
        self._answer = answer

    async def ask(self, method: str, path: str, body: object) -> dict[str, Any]:
        assert (method, path.rsplit("/", 2)[1:], body) == ("POST", ["audit", "erasures"], {"values": [ALICE]})
        if self._answer is None:
            raise CommandFailed("not yours to ask")
        return self._answer


class Asked(Api):
    """The service of a test, asked by its operator."""

    def __init__(self, usage) -> None:
        super().__init__(usage.http, Credentials("http://usage.test", "", "", ""))
        self._headers = usage.operator

    async def _bearer(self) -> str:
        return self._headers["Authorization"].removeprefix("Bearer ")

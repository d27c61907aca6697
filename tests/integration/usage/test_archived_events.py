"""Events of days that PostgreSQL has no longer are listed as they were before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from archives import DAY
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import MemoryStore

from tenantry import Tier, Unavailable
from usage_service.archive.layout import ROOT
from usage_service.archive.reading import ArchiveReader, Wanted
from usage_service.archive.store import ArchiveStore, MissingObject

from .support import open_usage

DUE = datetime(2026, 4, 11, 12, tzinfo=UTC)
SPAN = {"from": "2026-02-27T00:00:00Z", "to": "2026-04-12T00:00:00Z"}


@pytest.fixture
async def served(world, kafka_bootstrap, kafka_prefix, tenant_a, tenant_b):
    """The HTTP application beside an archive, with events of two tenants on three days."""
    service = await open_usage(world.database, kafka_bootstrap, f"{kafka_prefix}archive.")
    service.state.directory.upsert_tier(Tier(name="standard", version=1))
    for tenant in (tenant_a, tenant_b):
        service.state.directory.upsert(tenant)
    for n in range(3):
        await world.put_events(tenant_b.id, range(40), day=DAY + timedelta(days=n))
        await world.put_events(tenant_a.id, range(25), day=DAY + timedelta(days=n))
        await world.put_events(tenant_a.id, range(25, 30), day=DAY + timedelta(days=n), kind="other.thing")
    async with service.running(archive_url=world.directory.as_uri()):
        yield service


async def listed(usage, tenant, **params) -> list[dict]:
    """All pages, which are full but for the last."""
    found: list[dict] = []
    cursor: dict[str, str] = {}
    while True:
        response = await usage.http.get(
            "/v1/events", params={**SPAN, **params, **cursor}, headers=usage.tenant_key(tenant)
        )
        assert response.status_code == 200, response.text
        page = response.json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        assert len(page["items"]) == int(params["limit"])
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("gone", [1, 2, 3])
async def test_pages_are_the_same_before_and_after_days_were_dropped(served, world, tenant_a, gone):
    asked = [
        {"limit": "7"},
        {"limit": "100"},
        {"limit": "10", "from": "2026-03-01T00:00:20.000001Z", "to": "2026-03-03T00:00:05Z"},
    ]
    before = [await listed(served, tenant_a, **each) for each in asked]
    assert [len(each) for each in before] == [90, 90, 45]
    world.clock.moment = DUE + timedelta(days=gone - 1)
    await world.keeper().sweep()
    assert [await world.stored(DAY + timedelta(days=n)) for n in range(3)] == [n >= gone for n in range(3)]
    assert [await listed(served, tenant_a, **each) for each in asked] == before


@pytest.fixture
async def dropped(world, tenant_a, tenant_b):
    """A day in the archive alone, in several objects and row groups, and a second object of late events."""
    await world.put_events(tenant_b.id, range(900))
    await world.put_events(tenant_a.id, range(900, 2_500))
    await world.keeper().sweep()
    await world.put_events(tenant_a.id, range(100, 150), received=datetime(2026, 3, 10, tzinfo=UTC), kind="late")
    rows = [row for row in await world.rows() if row[0] == tenant_a.id]
    world.clock.moment = DUE + timedelta(days=30)
    await world.keeper().sweep()
    assert not await world.stored()
    assert len(await world.files()) == 4
    return sorted(rows, key=lambda row: (row[2], row[1]))


def wanted(tenant, **changes) -> Wanted:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    return Wanted(
        **{
            "tenant_id": tenant.id,
            "first": start,
            "last": start + timedelta(days=1),
            "after": (start, UUID(int=0)),
            "limit": 10_000,
            **changes,
        }
    )


async def test_types_and_receipt_select(world, dropped, tenant_a):
    reader = ArchiveReader(world.databases, world.store)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    found = await reader.events_of(wanted(tenant_a))
    assert [(each.event_time, each.identity, each.data) for each in found] == [(r[2], r[1], r[12]) for r in dropped]
    late = await reader.events_of(wanted(tenant_a, event_type="late"))
    assert [each.event_id for each in late] == [f"e-{n}" for n in range(100, 150)]
    assert await reader.events_of(wanted(tenant_a, event_type="late", received_before=noon)) == []
    assert len(await reader.events_of(wanted(tenant_a, received_before=noon + timedelta(microseconds=1)))) == 1_600


async def test_an_object_that_was_rewritten_meanwhile_is_looked_for_again(world, dropped, tenant_a, monkeypatch):
    reader = ArchiveReader(world.databases, world.store)
    real, failures = ArchiveStore.open_object, [MissingObject("gone")] * 2

    def once(self, path):
        if failures:
            raise failures.pop()
        return real(self, path)

    monkeypatch.setattr(ArchiveStore, "open_object", once)
    assert len(await reader.events_of(wanted(tenant_a))) == len(dropped)
    for file in await world.files():
        file.unlink()
    with pytest.raises(Unavailable):
        await reader.events_of(wanted(tenant_a))


async def test_a_bucket_is_as_good_as_a_directory(world, tenant_a):
    """A store that is no directory, as obstore has them for clouds."""
    store = ArchiveStore(MemoryStore())
    await store.check(to_write=True)
    await world.put_events(tenant_a.id, range(1_500))
    world.clock.moment = DUE
    await world.keeper(world.archivist(store)).sweep()
    assert not await world.stored()
    assert len([path async for path in store.paths(ROOT)]) == 2
    assert len(await ArchiveReader(world.databases, store).events_of(wanted(tenant_a))) == 1_500


async def test_a_dry_run_says_what_would_go_and_touches_nothing(served, world, tenant_a):
    await world.keeper().sweep()
    files = await world.files()
    asked = {"at": (DUE + timedelta(days=1)).isoformat()}
    response = await served.http.get("/v1/retention", params=asked, headers=served.operator)
    assert response.status_code == 200, response.text
    found = response.json()
    assert [(each["day"], each["step"]) for each in found["days"]] == [
        ("2026-03-01", "drop"),
        ("2026-03-02", "archive"),
        ("2026-03-03", "archive"),
    ]
    assert found["days"][0]["due"] == "2026-04-11T00:00:00Z"
    assert (found["archive_objects"], found["dead_letters"]) == ([], 0)
    assert await world.files() == files
    assert (await served.http.get("/v1/retention", headers=served.tenant_key(tenant_a))).status_code == 403
    world.clock.moment = DUE
    await world.keeper().sweep()
    asked = {"at": (DUE + timedelta(days=400)).isoformat()}
    found = (await served.http.get("/v1/retention", params=asked, headers=served.operator)).json()
    assert [(each["day"], each["rows"]) for each in found["archive_objects"]] == [("2026-03-01", 70)]


async def test_figures_are_the_same_before_and_after_days_were_dropped(served, world, tenant_a):
    """Minutes and ranges that cut an hour are answered by raw events, which the archive has then."""
    await put_meters(served)
    await world.fetch("UPDATE system.meter SET since = 1")
    ragged = {"from": "2026-03-01T00:00:05Z", "to": "2026-03-03T00:00:26Z"}
    day = {"from": "2026-03-02T00:00:05Z", "to": "2026-03-03T00:00:11Z"}
    asked = [
        {"slug": "events", "window": "minute", **day},
        {"slug": "events", **ragged},
        {"slug": "ids", **ragged},
        {"slug": "level", "window": "minute", **day},
        {"slug": "last", "received_before": "2026-03-02T12:00:00.000001Z", **ragged},
    ]
    before = [await figures(served, tenant_a, **each) for each in asked]
    # Of the whole hours there are no rollups here: the events were put past the worker.
    assert [len(each) for each in before[:2]] == [2, 1]
    assert before[1] == [("2026-03-01T00:00:05Z", "45")]
    for gone in range(3):
        world.clock.moment = DUE + timedelta(days=gone)
        await world.keeper().sweep()
        assert [await world.stored(DAY + timedelta(days=n)) for n in range(3)] == [n > gone for n in range(3)]
        assert [await figures(served, tenant_a, **each) for each in asked] == before


@pytest.mark.parametrize("problem", [GenericError("away"), PermissionDeniedError("no"), OSError("no"), "damaged"])
async def test_an_archive_that_cannot_be_read_is_said(served, world, tenant_a, monkeypatch, problem):
    await put_meters(served)
    await world.fetch("UPDATE system.meter SET since = 1")
    world.clock.moment = DUE
    await world.keeper().sweep()

    def failing(self, path):
        raise problem

    if problem == "damaged":
        for file in await world.files():
            file.write_bytes(file.read_bytes()[:-20])
    else:
        monkeypatch.setattr(ArchiveStore, "open_object", failing)
    figure = {"from": "2026-03-01T00:00:05Z", "to": "2026-03-01T00:00:20Z"}
    for path, params in (("events", SPAN), ("meters/events/query", figure), ("meters/level/query", figure)):
        response = await served.http.get(f"/v1/{path}", params=params, headers=served.tenant_key(tenant_a))
        assert (response.status_code, response.json()["type"]) == (503, "archive-incomplete"), response.text


async def put_meters(usage) -> None:
    plain = {"event_type": "http.request", "aggregation": "count"}
    await usage.put_meter("events", plain)
    await usage.put_meter("ids", {**plain, "aggregation": "unique_count", "value": "$.n"})
    await usage.put_meter("level", {**plain, "aggregation": "time_weighted", "value": "$.n"})
    await usage.put_meter("last", {**plain, "aggregation": "latest", "value": "$.n"})


async def figures(usage, tenant, *, slug: str, **params) -> list[tuple[str, str | None]]:
    found = await usage.query(tenant, slug, **params)
    return [(each["window_start"], each["value"]) for each in found["items"]]

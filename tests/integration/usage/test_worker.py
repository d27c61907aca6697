"""What becomes of events that are not plain: late meters, unknown tenants, bad values, conflicts, many groups."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from aiokafka import ConsumerRecord

from tenantry import TenantClock, Tier, uuid7
from tenantry.events import partition_key
from tenantry.testing import eventually
from usage_service.metering import parking, rollups
from usage_service.metering.days import OwnedDays
from usage_service.metering.rollups import RollupStore
from usage_service.metering.worker import GROUP, NUDGE, TOPIC
from usage_service.retention.days import DayBusy, closed_day

from .batches import Member
from .support import API_CALLS, BANDWIDTH, event

SPAN = {
    "from": (datetime.now(UTC) - timedelta(days=3)).isoformat(),
    "to": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
}


async def letters(usage, **params) -> list[dict]:
    response = await usage.http.get("/v1/dead-letters", params=params, headers=usage.operator)
    assert response.status_code == 200, response.text
    return response.json()["items"]


async def test_a_meter_counts_what_is_received_after_it_was_put(usage, tenant_a):
    async with usage.metering():
        await usage.put_meter("bandwidth", BANDWIDTH)
        await usage.send(event(tenant_a, 1))
        await eventually(usage.counted, within=60)
        await usage.put_meter("api-calls", API_CALLS)
        await usage.send(event(tenant_a, 2))
        await eventually(usage.counted, within=60)
        await usage.put_meter("api-calls", {**API_CALLS, "filter": {"$.path": {"ne": "/a"}}})
        await usage.send(event(tenant_a, 3), event(tenant_a, 4, data={"path": "/b", "bytes": 1}))
        await eventually(usage.counted, within=60)
    calls = await usage.query(tenant_a, "api-calls", group_by="path", **SPAN)
    assert {item["group"]["path"]: item["value"] for item in calls["items"]} == {"/a": "1", "/b": "1"}
    # Raw events say the same: each is counted by the version under which it was stored.
    minutes = await usage.query(
        tenant_a,
        "api-calls",
        window="minute",
        **{"from": (datetime.now(UTC) - timedelta(hours=1)).isoformat(), "to": datetime.now(UTC).isoformat()},
    )
    assert sum(int(item["value"]) for item in minutes["items"]) == 2


async def test_unmatched_types_are_counted_by_tenant_and_listed(usage, tenant_a):
    async with usage.metering():
        await usage.send(event(tenant_a, 1, type="new.thing"), event(tenant_a, 2, type="new.thing"))
        await eventually(usage.counted, within=60)
    listed = (await usage.http.get("/v1/unmatched-types", headers=usage.tenant_key(tenant_a))).json()["items"]
    assert [(each["type"], each["count"]) for each in listed] == [("new.thing", "2")]


async def test_a_value_that_is_no_number_is_listed_and_never_a_zero(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    values: list[object] = ["NaN", None, True, "12x", [1], {}, "7", 1.5]
    async with usage.metering():
        await usage.send(*[event(tenant_a, n, data={"bytes": value}) for n, value in enumerate(values)])
        await eventually(usage.counted, within=60)
    [item] = (await usage.query(tenant_a, "bandwidth", **SPAN))["items"]
    assert item["value"] == "8.5"
    listed = await letters(usage, kind="invalid-value", tenant_id=str(tenant_a.id))
    assert {each["event_id"] for each in listed} == {f"e-{n}" for n in range(6)}
    assert all(each["reason"] and json.loads(each["payload"])["source"] == "tests" for each in listed)
    [row] = await usage.fetch("SELECT count(*) FROM pool.usage_event")
    assert row[0] == 8


async def test_the_same_identity_with_other_content_is_a_reported_duplicate(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    first = event(tenant_a, 1, data={"bytes": 10, "path": "/a"})
    async with usage.metering():
        await usage.send(first)
        await eventually(usage.counted, within=60)
        # The order of members and the spelling of a number are no difference; the value is.
        body = json.dumps([first]).replace('{"bytes": 10, "path": "/a"}', '{"path":"/a","bytes":1.0e1}')
        headers = {"Content-Type": "application/json", **usage.service}
        assert (await usage.http.post("/v1/events", content=body, headers=headers)).status_code == 202
        await usage.send({**first, "data": {"bytes": 99}})
        await eventually(usage.counted, within=60)
    [item] = (await usage.query(tenant_a, "bandwidth", **SPAN))["items"]
    assert item["value"] == "10"
    [conflict] = await letters(usage, kind="conflict")
    assert json.loads(conflict["payload"])["data"] == {"bytes": 99}


async def test_a_tenant_that_the_worker_learns_of_later_is_counted(usage, tenant_factory):
    await usage.put_meter("bandwidth", BANDWIDTH)
    late = tenant_factory()
    body = json.dumps(event(late, 1)).encode()
    async with usage.metering():
        await usage.produce([body], [late.id])
        await eventually(lambda: usage.fetch("SELECT FROM system.parked_record"), within=60)
        usage.state.directory.upsert(late)
        await eventually(usage.counted, within=60)
    [item] = (await usage.query(late, "bandwidth", **SPAN))["items"]
    assert item["value"] == "10"


async def test_a_tenant_that_nobody_knows_becomes_a_dead_letter(usage, tenant_factory, monkeypatch):
    monkeypatch.setattr("usage_service.metering.worker.PARKED_SECONDS", 1)
    stranger = tenant_factory()
    async with usage.metering():
        await usage.produce([json.dumps(event(stranger, 1)).encode(), b"{nonsense"], [stranger.id, stranger.id])
        await eventually(lambda: letters(usage, kind="unknown-tenant"), within=60)
        await eventually(usage.counted, within=60)
    assert parking.PARKED_SECONDS == 60
    [unreadable] = await letters(usage, kind="undecodable")
    assert (unreadable["payload"], unreadable["tenant_id"]) == ("{nonsense", None)
    assert await usage.fetch("SELECT FROM pool.usage_event") == []


async def test_records_that_the_ingest_would_have_refused_hold_nobody_up(usage, tenant_a, tenant_b):
    """Another producer has sent them: each is a letter, and their neighbours count."""
    await usage.put_meter("bandwidth", BANDWIDTH)
    ahead = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    of_a_clock = msgspec.structs.replace(
        tenant_b, version=2, clock=TenantClock(id=uuid7(), now=datetime.now(UTC) + timedelta(days=90))
    )
    usage.state.directory.upsert(of_a_clock)
    bad = [
        event(tenant_a, 1, time="0001-01-01T00:00:00Z"),
        event(tenant_a, 2, time="0001-01-01T00:00:00+14:00"),
        event(tenant_a, 3, time="1999-12-31T23:59:59Z"),
        event(tenant_a, 4, time="9999-12-31T23:59:59Z"),
        event(tenant_a, 5, time="2200-01-01T00:00:00Z"),
        event(tenant_a, 6, time=ahead),
        event(tenant_a, 7, type="".join(random.choices("abcdefgh", k=5_000))),  # noqa: S311
        event(tenant_a, 8, id="i" * 257),
        event(tenant_a, 9, source="s" * 513),
    ]
    good = [event(tenant_a, 10), event(tenant_a, 11, time="2000-01-01T00:00:00Z"), event(of_a_clock, 1, time=ahead)]
    sent = [*bad[:4], good[0], *bad[4:], *good[1:]]
    await usage.produce([json.dumps(each).encode() for each in sent], [each["subject"] for each in sent])
    async with usage.metering(members=1):
        await eventually(usage.counted, within=60)
    found = await letters(usage, kind="undecodable")
    assert sorted(json.loads(each["payload"])["id"] for each in found) == sorted(each["id"] for each in bad)
    assert all(each["reason"] for each in found)
    rows = await usage.fetch("SELECT tenant_id, sum(count)::int AS count FROM pool.usage_rollup GROUP BY 1")
    assert {row["tenant_id"]: row["count"] for row in rows} == {tenant_a.id: 2, tenant_b.id: 1}


async def test_many_parked_records_are_taken_up_by_and_by(usage, tenant_a, tenant_b, tenant_factory, monkeypatch):
    """What still waits is not written again, and what is known by now is counted once, however little fits a batch."""
    monkeypatch.setattr(parking, "_PAGE", 2)
    await usage.put_meter("api-calls", API_CALLS)
    stranger = tenant_factory()
    member = await Member.join(usage)
    usage.state.directory.forget(tenant_a.id)
    await member.count(*[event(tenant_a, n) for n in range(4)], event(stranger, 1))
    parked = await usage.fetch('SELECT "offset", xmin::text FROM system.parked_record ORDER BY "offset"')
    assert [row["offset"] for row in parked] == [0, 1, 2, 3, 4]
    usage.state.directory.upsert(tenant_a)
    left = []
    for number in range(4):
        await member.count(event(tenant_b, number))
        left.append(await usage.fetch('SELECT "offset", xmin::text FROM system.parked_record ORDER BY "offset"'))
    assert left == [parked[2:], parked[4:], parked[4:], parked[4:]]
    rows = await usage.fetch("SELECT tenant_id, count(*)::int AS events FROM pool.usage_event GROUP BY 1")
    assert {row["tenant_id"]: row["events"] for row in rows} == {tenant_a.id: 4, tenant_b.id: 4}
    # Until the stranger's event, and no further.
    [[until, received]] = await usage.fetch(
        "SELECT received_until, received_at FROM system.partition_progress, system.parked_record"
    )
    assert until == received - timedelta(microseconds=1)


async def test_the_groups_that_are_remembered_have_a_bound(usage, tenant_a, monkeypatch):
    monkeypatch.setattr(rollups, "_REMEMBERED_GROUPS", 5)
    await usage.put_meter("api-calls", API_CALLS)
    member = await Member.join(usage)
    remembered = []
    for start in (0, 3, 2, 6):
        numbers = range(start, start + 3)
        await member.count(*[event(tenant_a, n, id=f"{start}-{n}", data={"path": f"/{n}"}) for n in numbers])
        store = member._worker._rollups
        assert store._groups == sum(map(len, store._windows.values()))
        remembered.append(store._groups)
    assert remembered[0] == 3
    rows = await usage.fetch("SELECT groups, count::int FROM pool.usage_rollup")
    assert sum(row["count"] for row in rows) == 12
    assert len(rows) == 9


@pytest.mark.parametrize("known", [True, False])
async def test_t15_an_event_under_another_tenants_key_is_a_dead_letter_and_counts_for_nobody(
    usage, tenant_a, tenant_b, tenant_factory, known
):
    """Also where the worker does not know the tenant yet, which would have the event wait for it."""
    await usage.put_meter("calls", API_CALLS)
    named = tenant_a if known else tenant_factory()
    poisoned = [json.dumps(event(named, n)).encode() for n in range(3)]
    good = json.dumps(event(tenant_b, 4)).encode()
    await usage.produce([*poisoned, good], [tenant_b.id] * 4)
    async with usage.metering(members=1):
        await eventually(usage.counted, within=60)
    rows = await usage.fetch("SELECT tenant_id, sum(count)::int AS count FROM pool.usage_rollup GROUP BY 1")
    assert [tuple(row) for row in rows] == [(tenant_b.id, 1)]
    assert await usage.fetch("SELECT 1 FROM system.parked_record") == []
    found = await letters(usage, kind="undecodable")
    assert [(letter["tenant_id"], "record's key" in letter["reason"]) for letter in found] == [(None, True)] * 3


async def test_groups_past_the_bound_are_counted_as_other(usage, tenant_a, monkeypatch):
    monkeypatch.setattr(rollups, "MAX_GROUPS", 5)
    monkeypatch.setattr(RollupStore.__init__, "__kwdefaults__", {"max_groups": 5})
    await usage.put_meter("api-calls", API_CALLS)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0).isoformat()
    async with usage.metering():
        for start in (0, 4):
            paths = range(start, start + 4)
            await usage.send(*[event(tenant_a, n, time=now, data={"path": f"/{n}"}) for n in paths])
            await eventually(usage.counted, within=60)
    calls = await usage.query(tenant_a, "api-calls", group_by="path", **SPAN)
    found = {item["group"]["path"]: int(item["value"]) for item in calls["items"]}
    assert sum(found.values()) == 8
    assert found["__other__"] == 3
    assert len(found) == 6


async def test_figures_from_hours_and_from_raw_events_agree(usage, tenant_a):
    """A range cut anywhere gives the sum of its parts: rollups and raw events count alike."""
    await usage.put_meter("bandwidth", BANDWIDTH)
    draw = random.Random(5)  # noqa: S311
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
    sent = [
        (start + timedelta(seconds=draw.randrange(100_000)), Decimal(draw.randrange(1, 999)) / 8) for _ in range(400)
    ]
    events = [
        event(tenant_a, n, time=time.isoformat(), data={"bytes": str(size), "method": "GET"})
        for n, (time, size) in enumerate(sent)
    ]
    async with usage.metering():
        await usage.send(*events)
        await eventually(usage.counted, within=60)
    for _ in range(8):
        first = start + timedelta(seconds=draw.randrange(50_000), microseconds=draw.randrange(10**6))
        last = first + timedelta(seconds=draw.randrange(60_000))
        expected = sum(size for time, size in sent if first <= time < last)
        # Asked with an offset that puts the edges on other local days than UTC's.
        east = timezone(timedelta(hours=13))
        span = {"from": first.astimezone(east).isoformat(), "to": last.astimezone(east).isoformat()}
        for window in ("none", "hour", "day"):
            for zone in ("UTC", "Asia/Kolkata"):
                answer = await usage.query(tenant_a, "bandwidth", window=window, timezone=zone, **span)
                assert sum(Decimal(item["value"]) for item in answer["items"]) == expected


async def test_events_are_listed_page_by_page(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    async with usage.metering():
        await usage.send(*[event(tenant_a, n) for n in range(25)], event(tenant_a, 99, type="other"))
        await eventually(usage.counted, within=60)
    seen, cursor = [], None
    while True:
        params = {"meter": "bandwidth", "limit": 10} | ({"cursor": cursor} if cursor else {})
        page = (await usage.http.get("/v1/events", params=params, headers=usage.tenant_key(tenant_a))).json()
        seen += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(f"e-{n}" for n in range(25))


async def test_history_gets_its_days_on_demand(usage, tenant_a):
    usage.state.directory.upsert_tier(Tier(name="sample", version=1, max_event_age_seconds=None))
    usage.state.directory.upsert(msgspec.structs.replace(tenant_a, version=2, tier="sample"))
    await usage.put_meter("bandwidth", BANDWIDTH)
    async with usage.metering():
        await usage.send(*[event(tenant_a, n, time=f"2015-05-{17 + n % 4}T10:05:03Z") for n in range(20)])
        await eventually(usage.counted, within=60)
    days = await usage.query(
        tenant_a, "bandwidth", window="day", **{"from": "2015-05-01T00:00:00Z", "to": "2015-06-01T00:00:00Z"}
    )
    assert [item["value"] for item in days["items"]] == ["50", "50", "50", "50"]
    span = {"from": "2015-05-16T00:00:00Z", "to": "2015-05-18T00:00:00Z"}
    filled = await usage.query(tenant_a, "bandwidth", window="day", fill="zero", **span)
    assert [item["value"] for item in filled["items"]] == ["0", "50"]


async def test_a_batch_that_was_rolled_back_can_be_handled_again(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    await usage.fetch(
        "INSERT INTO system.consumer_offset VALUES ($1, $2, 0, 0, 1)",
        usage.kafka.group(GROUP),
        usage.kafka.topic(TOPIC),
    )
    records = [record(tenant_a, offset) for offset in range(3)]
    worker = usage.worker()
    async with usage.databases.system.connect() as connection:
        for outcome in ("rollback", "commit"):
            async with connection.begin() as transaction:
                await worker.handle(connection, records)
                # A part of a batch may come again in the same transaction: nothing of it counts twice.
                await worker.handle(connection, records[:2])
                await getattr(transaction, outcome)()
    [row] = await usage.fetch("SELECT sum(count)::int AS count, max(version) AS version FROM pool.usage_rollup")
    assert tuple(row) == (3, 1)


async def test_no_day_goes_under_a_batch_that_does_not_know_it_to_be_gone(usage, tenant_a):
    """From its first statement to its commit: it may write to days beside it, whose copies it looks for there."""
    old = date(2026, 3, 1)
    await OwnedDays(usage.database.urls.migrator).ensure([old])
    async with usage.databases.system.begin() as connection:
        await usage.worker().handle(connection, [nudge()])
        with pytest.raises(DayBusy):
            await drop(usage, old)
    await drop(usage, old)
    assert await OwnedDays(usage.database.urls.migrator).ensure([old]) == {old}


async def drop(usage, day: date) -> None:
    async with closed_day(usage.database.urls.migrator, day) as closed:
        await closed.drop()


def nudge() -> ConsumerRecord:
    return ConsumerRecord(TOPIC, 0, 0, 1_800_000_000_000, 1, None, None, None, 0, 0, ((NUDGE, b""),))


def record(tenant, offset: int) -> ConsumerRecord:
    value = json.dumps(event(tenant, offset, time="2026-11-20T10:00:00Z")).encode()
    key = partition_key(tenant.id)
    return ConsumerRecord(TOPIC, 0, offset, 1_800_000_000_000, 1, key, value, None, len(key), len(value), ())

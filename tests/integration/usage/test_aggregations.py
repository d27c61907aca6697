"""Latest, unique counts and integrals: equal to an oracle that has all events, whatever came when and how often."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from broker import read_topic

from tenantry.events import UsageProducer, partition_key
from tenantry.testing import eventually
from usage_service.domain.quantities import ratio_text
from usage_service.domain.windows import Granularity, windows, zone

from .support import event

START = (datetime.now(UTC) - timedelta(days=3)).replace(hour=21, minute=0, second=0, microsecond=0)
METERS: dict[str, dict[str, Any]] = {
    "size-now": {"aggregation": "latest", "value": "$.v"},
    "users": {"aggregation": "unique_count", "value": "$.user", "group_by": {"disk": "$.disk"}},
    "stored": {"aggregation": "time_weighted", "value": "$.v", "group_by": {"disk": "$.disk"}, "unit": "byte-hours"},
}
Event = dict
Oracle = Callable[[list[Event], datetime, datetime, list[Event]], str | None]


def latest(inside: list[Event], _: datetime, __: datetime, ___: list[Event]) -> str | None:
    # `max` keeps the first of equals: of one instant the last that was received counts.
    return max(reversed(inside), key=moment)["data"]["v"] if inside else None


def unique(inside: list[Event], _: datetime, __: datetime, ___: list[Event]) -> str | None:
    return str(len({each["data"]["user"] for each in inside})) if inside else None


def stored(_: list[Event], first: datetime, last: datetime, everything: list[Event]) -> str | None:
    """Every disk is a series; a value holds until the next of its disk."""
    total, known = Fraction(0), False
    for disk in {each["data"].get("disk") for each in everything}:
        series = [each for each in everything if each["data"].get("disk") == disk and moment(each) < last]
        known |= bool(series)
        edges = sorted({first, last, *(moment(each) for each in series if moment(each) > first)})
        for since, until in pairwise(edges):
            before = [each for each in series if moment(each) <= since]
            if before:
                value = Fraction(max(reversed(before), key=moment)["data"]["v"])
                total += value * Fraction((until - since) // timedelta(microseconds=1), 3_600_000_000)
    if not known:
        return None
    return ratio_text(Decimal(total.numerator), total.denominator)


ORACLES: dict[str, Oracle] = {"size-now": latest, "users": unique, "stored": stored}


def moment(each: Event) -> datetime:
    return datetime.fromisoformat(each["time"])


def gauge(tenant, number: int, minutes: float, **data) -> Event:
    time = START + timedelta(minutes=minutes)
    return event(tenant, number, type="gauge", time=time.isoformat(), data=data)


def sample_of(tenant, dice: random.Random, count: int) -> list[Event]:
    return [
        gauge(
            tenant,
            number,
            dice.choice([dice.uniform(0, 600), dice.randrange(0, 600, 20)]),
            v=str(dice.choice([dice.randint(0, 9), Decimal(dice.randint(1, 9999)) / 1000])),
            user=f"u-{dice.randint(0, 12)}",
            **({"disk": dice.choice("ab")} if dice.random() < 0.8 else {}),
        )
        for number in range(count)
    ]


async def check(usage, tenant, events: list[Event], granularity: Granularity, name: str, span: tuple[int, int]) -> None:
    first, last = (START + timedelta(minutes=minutes) for minutes in span)
    parameters = {"from": first.isoformat(), "to": last.isoformat(), "window": granularity.value, "timezone": name}
    for slug, oracle in ORACLES.items():
        answer = await usage.query(tenant, slug, **parameters)
        expected = []
        for window in windows(first, last, granularity, zone(name)):
            inside = [each for each in events if window.first <= moment(each) < window.last]
            value = oracle(inside, window.first, window.last, events)
            if value is not None:
                expected.append((window.start, window.end, value))
        found = [
            (datetime.fromisoformat(item["window_start"]), datetime.fromisoformat(item["window_end"]), item["value"])
            for item in answer["items"]
        ]
        assert found == expected, (slug, parameters)


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_figures_are_those_of_all_events_in_whatever_order_and_batches_they_came(usage, tenant_a, seed):
    dice = random.Random(seed)  # noqa: S311 (a seed that is repeated)
    for slug, definition in METERS.items():
        await usage.put_meter(slug, {"event_type": "gauge", **definition})
    events = sample_of(tenant_a, dice, 120)
    # In the order of their receipt; a copy of what has been received is not received again.
    dice.shuffle(events)
    left = list(events)
    async with usage.metering():
        while left:
            size = dice.randint(1, 50)
            batch, left = left[:size], left[size:]
            await usage.send(*batch, *dice.sample(events[: len(events) - len(left)], k=3))
            await eventually(usage.counted, within=60)
        for granularity, name, span in (
            (Granularity.NONE, "UTC", (0, 600)),
            (Granularity.NONE, "UTC", (-33, 517)),
            (Granularity.HOUR, "UTC", (60, 540)),
            (Granularity.HOUR, "Asia/Kathmandu", (37, 555)),
            (Granularity.MINUTE, "UTC", (25, 95)),
            (Granularity.DAY, "Europe/Berlin", (-1500, 3000)),
        ):
            await check(usage, tenant_a, events, granularity, name, span)
        by_disk = await usage.query(
            tenant_a, "users", group_by="disk", **{"from": START.isoformat(), "to": datetime.now(UTC).isoformat()}
        )
    groups = {each["data"].get("disk", "") for each in events}
    assert {item["group"]["disk"]: item["value"] for item in by_disk["items"]} == {
        disk: str(len({each["data"]["user"] for each in events if each["data"].get("disk", "") == disk}))
        for disk in groups
    }


async def test_workers_that_count_one_tenant_at_once_lose_no_sample_of_each_other(usage, tenant_a):
    """A tenant whose events are spread over partitions: its rollups are written by several workers."""
    await usage.fetch("INSERT INTO system.spread_tenant (tenant_id, buckets) VALUES ($1, 12)", tenant_a.id)
    dice = random.Random(3)  # noqa: S311 (a seed that is repeated)
    for slug, definition in METERS.items():
        await usage.put_meter(slug, {"event_type": "gauge", **definition})
    events = sample_of(tenant_a, dice, 400)
    # No two at one instant: which of them is received later is not for this test to say.
    for number, each in enumerate(events):
        each["time"] = (moment(each) + timedelta(microseconds=number)).isoformat()
    dice.shuffle(events)
    sender = UsageProducer(usage.kafka)
    await sender.start()
    try:
        async with usage.metering(members=4):
            for start in range(0, len(events), 20):
                keys = [partition_key(tenant_a.id, 12, each["source"], each["id"]) for each in events]
                values = [msgspec.json.encode(each) for each in events]
                await sender.send(list(zip(keys, values, strict=True))[start : start + 20])
            await eventually(usage.counted, within=60)
    finally:
        await sender.stop()
    partitions = await usage.fetch("SELECT count(DISTINCT kafka_partition) AS spread FROM pool.usage_event")
    assert partitions[0]["spread"] > 4
    [settled] = await usage.fetch("SELECT mixed_since IS NULL FROM system.spread_tenant")
    assert settled[0], "nobody took the tenant for himself"
    # Whoever writes to rows that others write to takes them in one order.
    [stopped] = await usage.fetch("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert stopped[0] == 0
    await check(usage, tenant_a, events, Granularity.HOUR, "UTC", (0, 600))
    await check(usage, tenant_a, events, Granularity.NONE, "UTC", (0, 600))


async def test_an_hour_that_two_versions_of_a_meter_counted_is_one_series(usage, tenant_a):
    dice = random.Random(4)  # noqa: S311 (a seed that is repeated)
    events = sample_of(tenant_a, dice, 90)
    dice.shuffle(events)
    async with usage.metering():
        for start, changes in ((0, {}), (30, {"filter": {"$.v": {"exists": True}}}), (60, {"unit": "byte"})):
            for slug, definition in METERS.items():
                await usage.put_meter(slug, {"event_type": "gauge", **definition, **changes})
            await usage.send(*events[start : start + 30])
            await eventually(usage.counted, within=60)
        for granularity, span in ((Granularity.HOUR, (30, 570)), (Granularity.NONE, (0, 1200))):
            await check(usage, tenant_a, events, granularity, "UTC", span)


async def test_nothing_is_a_zero_only_where_things_are_counted(usage, tenant_a):
    for slug, definition in METERS.items():
        await usage.put_meter(slug, {"event_type": "gauge", **definition})
    span = {"from": START.isoformat(), "to": (START + timedelta(hours=1)).isoformat()}
    empty = [(await usage.query(tenant_a, slug, **span))["items"] for slug in METERS]
    assert [[item["value"] for item in items] for items in empty] == [[None], ["0"], [None]]
    hours = [(await usage.query(tenant_a, slug, window="hour", **span))["items"] for slug in METERS]
    assert hours == [[], [], []]
    filled = [(await usage.query(tenant_a, slug, window="hour", fill="zero", **span))["items"] for slug in METERS]
    assert [[item["value"] for item in items] for items in filled] == [[None], ["0"], ["0"]]


async def test_the_topic_has_states_that_merge(usage, tenant_a):
    for slug, definition in METERS.items():
        await usage.put_meter(slug, {"event_type": "gauge", **definition, "group_by": {}})
    events = [
        gauge(tenant_a, 1, 10, v="4", user="x"),
        gauge(tenant_a, 2, 40, v="2", user="y"),
        gauge(tenant_a, 3, 25, v="10", user="x"),
    ]
    async with usage.metering(), usage.relaying():
        for each in events:
            await usage.send(each)
            await eventually(usage.counted, within=60)
        await eventually(lambda: published_until(usage, 3), within=60)
        records = [msgspec.json.decode(record.value) for record in await read_topic(usage.kafka, "usage.rollups.v1")]
    found = {record["meter"]: record for record in records}
    at = {minute: f"{START + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}" for minute in (10, 40)}
    assert {slug: record["count"] for slug, record in found.items()} == dict.fromkeys(METERS, "3")
    assert found["users"]["unique_count"] == "2"
    assert (found["size-now"]["latest"]["value"], found["size-now"]["latest"]["time"]) == ("2", at[40])
    assert (found["stored"]["first_time"], found["stored"]["latest"]["time"]) == (at[10], at[40])
    assert Decimal(found["stored"]["integral"]) == (4 * 15 + 10 * 15) * 60_000_000
    assert {record["version"] for record in found.values()} == {3}


async def published_until(usage, version: int) -> bool:
    rows = await usage.fetch("SELECT min(version) AS least FROM pool.usage_rollup")
    return rows[0]["least"] == version and not await usage.fetch("SELECT FROM system.rollup_change")

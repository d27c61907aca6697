"""Everything is killed, stopped and cut off while events are sent, and then every figure is that of the oracle.

`make chaos SEED=7 MINUTES=10` repeats a schedule; without them a short one of a fixed seed runs. What is sent is
seeded, too, but which answers get lost is not: the oracle goes by what Kafka has and by what was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from servers import service_directory

from tenantry.testing import eventually

from .entitlements import ALERTS, BALANCES, METER, QUOTA, compare_alerts, compare_not_counted, is_settled
from .faults import inflict
from .installation import EVENTS, ROLLUPS, Installation
from .oracle import METERS, Expected, Figure, Window, expect, latest_of, value_hours
from .schedule import Fault, schedule
from .workload import Identity, Workload

SEED = int(os.environ.get("CHAOS_SEED") or 20261121)
SECONDS = 60 * float(os.environ.get("CHAOS_MINUTES") or 0.5)
TENANTS = 25
# Between two batches of one sender; six of them send 40 events each.
PAUSE = 0.25
TENANT_LENGTH = 36
"""A record's key begins with its tenant's id; a bucket may follow."""

_ROLLUPS = """
SELECT rollup.tenant_id::text AS tenant, meter.slug, window_start, groups, count, sum, minimum, maximum, rollup.version
  FROM pool.usage_rollup AS rollup JOIN system.meter AS meter ON meter.id = rollup.meter_id
"""
_STORED = "SELECT kafka_partition, kafka_offset FROM pool.usage_event"
_LETTERS = """
SELECT letter.tenant_id::text AS tenant, kind, meter.slug, source, event_id
  FROM pool.dead_letter AS letter LEFT JOIN system.meter AS meter ON meter.id = letter.meter_id
"""


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + 600)
async def test_nothing_is_lost_and_nothing_counts_twice():
    steps = schedule(SEED, SECONDS)
    with service_directory() as directory:
        async with Installation(directory, tenants=TENANTS) as installation:
            for slug, definition in METERS.items():
                await installation.put_meter(slug, dict(definition))
            for tenant in installation.tenants:
                await installation.put_quota(tenant, METER, QUOTA)
            workload = Workload(SEED, installation.tenants, installation.hot)
            over = asyncio.Event()
            sending = asyncio.create_task(workload.send(installation.client, until=over, pause=PAUSE))
            done = await inflict(installation, steps, SECONDS)
            over.set()
            await asyncio.wait_for(sending, 120)
            behind = time.monotonic()
            await eventually(installation.settled, within=180, interval=0.5)
            behind = time.monotonic() - behind
            received = [each for each in await installation.read(EVENTS) if each.value is not None]
            expected = expect((each.timestamp, each.value) for each in await in_order(installation, received))
            spread = sum(len(each.key) > TENANT_LENGTH for each in received)
            _report(workload, expected, done, behind, spread)
            assert len(done) == len({step.fault for step in steps})
            assert workload.acknowledged, "nothing was accepted, so nothing was tried"
            assert workload.acknowledged <= expected.seen, "an acknowledged event is not in Kafka"
            assert workload.corrections <= expected.corrections, "an acknowledged correction is not in Kafka"
            await compare(installation, expected)


async def in_order(installation: Installation, received: list[ConsumerRecord]) -> list[ConsumerRecord]:
    """As copies win: by partition and offset; of hot tenants, whose copies have several keys, the stored ones first.

    Which one of those is stored is free. That it is one, and that all others are copies of it, the oracle sees.
    """
    stored = {tuple(row) for row in await installation.fetch(_STORED)}
    hot = {tenant.encode() for tenant in installation.hot}

    def place(each: ConsumerRecord) -> tuple[bool, int, int]:
        free = each.key[:TENANT_LENGTH] in hot and (each.partition, each.offset) not in stored
        return free, each.partition, each.offset

    return sorted(received, key=place)


async def compare(installation: Installation, expected: Expected) -> None:
    """Everything that the service says is what the oracle says."""
    [kept] = await installation.fetch("SELECT count(*) AS count FROM pool.usage_event")
    assert kept["count"] == expected.stored
    [corrected] = await installation.fetch("SELECT count(day) AS count FROM pool.correction")
    assert corrected["count"] == expected.cancelled
    rows = await installation.fetch(_ROLLUPS)
    found = {
        _window(row["tenant"], row["slug"], row["window_start"], row["groups"]): Figure(
            row["count"], row["sum"], row["minimum"], row["maximum"]
        )
        for row in rows
    }
    assert len(found) == len(rows)
    nothing = {window for window, figure in found.items() if figure == Figure()}
    assert {window: figure for window, figure in found.items() if window not in nothing} == expected.windows

    letters = await installation.fetch(_LETTERS)
    invalid = Counter((each["tenant"], each["slug"]) for each in letters if each["kind"] == "invalid-value")
    assert invalid == expected.invalid
    assert {
        Identity(each["tenant"], each["source"], each["event_id"]) for each in letters if each["kind"] == "conflict"
    } == expected.conflicts
    others = {(each["kind"], each["source"]) for each in letters if each["kind"] not in {"invalid-value", "conflict"}}
    assert others <= {("late", "too-old")}
    unmatched = await installation.fetch("SELECT tenant_id::text, type, count FROM pool.unmatched_type WHERE count > 0")
    assert {(tenant, kind): count for tenant, kind, count in unmatched} == expected.unmatched

    await compare_published(
        installation, {_window(row["tenant"], row["slug"], row["window_start"], row["groups"]): row for row in rows}
    )
    await compare_answers(installation, expected)
    await compare_entitlements(installation, expected)


async def compare_published(installation: Installation, rows) -> None:
    """The last record of each key says what the rollup says, and no older state comes after a newer one."""
    last: dict[Window, dict[str, Any]] = {}
    versions: dict[bytes, int] = {}
    for each in await installation.read(ROLLUPS):
        if each.value is None or b"|" not in each.key:  # what marks a cut
            continue
        record = json.loads(each.value)
        assert record["version"] >= versions.get(each.key, 0), "an older state was published after a newer one"
        versions[each.key] = record["version"]
        last[
            _window(
                record["tenant_id"], record["meter"], datetime.fromisoformat(record["window_start"]), record["group"]
            )
        ] = record
    assert last.keys() == rows.keys()
    for window, row in rows.items():
        record = last[window]
        assert (record["version"], int(record["count"])) == (row["version"], row["count"])
        assert [_number(record[name]) for name in ("sum", "min", "max")] == [row["sum"], row["minimum"], row["maximum"]]


async def compare_answers(installation: Installation, expected: Expected) -> None:
    """What somebody is told who asks over HTTP for all that a tenant has used."""
    until = datetime.now(UTC).replace(microsecond=0)
    since = until - timedelta(days=40)
    for tenant in installation.tenants:
        samples = expected.samples[tenant]
        windows = [figure for window, figure in expected.windows.items() if window[:2] == (tenant, "bandwidth")]
        used = [figure.sum for figure in windows if figure.sum is not None]
        figures = {
            "bandwidth": sum(used, Decimal(0)) if used else None,
            "paths": Decimal(len(expected.paths[tenant])),
            "last": latest_of(samples),
            "level": value_hours(samples, until),
        }
        for slug, figure in figures.items():
            told = _number(await installation.total(slug, tenant, since, until))
            if slug == "level" and figure is not None and told is not None:
                assert abs(told - figure) < Decimal("1e-9"), slug
            else:
                assert told == figure, slug


async def compare_entitlements(installation: Installation, expected: Expected) -> None:
    """Balances and alerts are those of what counts at the end, whatever was raised and cleared on the way."""
    tenants = installation.tenants

    async def settled() -> bool:
        return is_settled(await installation.read(BALANCES), expected, tenants)

    await eventually(settled, within=60, interval=0.5)
    await eventually(installation.settled, within=60, interval=0.5)
    assert compare_alerts(await installation.read(ALERTS), expected, tenants)

    async def told() -> bool:
        [left] = await installation.fetch("SELECT count(*) AS count FROM pool.not_counted WHERE number IS NULL")
        [known] = await installation.fetch("SELECT count(*) AS count FROM pool.not_counted WHERE kind = 'conflict'")
        return left["count"] == 0 and known["count"] >= len({each.tenant for each in expected.conflicts})

    await eventually(told, within=60, interval=0.5)
    await eventually(installation.settled, within=60, interval=0.5)
    compare_not_counted(await installation.read(ALERTS), expected)


def _window(tenant: str, slug: str, hour: datetime, group: str | dict[str, str]) -> Window:
    decoded = json.loads(group) if isinstance(group, str) else group
    return Window(tenant, slug, hour.astimezone(UTC), json.dumps(decoded, sort_keys=True))


def _number(text: object) -> Decimal | None:
    return None if text is None else Decimal(str(text))


def _report(workload: Workload, expected: Expected, done: Counter[Fault], behind: float, spread: int) -> None:
    print(  # noqa: T201 - what a long run has to show
        f"\nseed {SEED}, {SECONDS:.0f} s: {len(workload.acknowledged):,} identities acknowledged, "
        f"{workload.repeated} requests repeated, {expected.stored:,} events kept, {expected.cancelled:,} of them "
        f"cancelled by {len(expected.corrections):,} corrections, {len(expected.windows):,} windows, "
        f"{len(expected.conflicts)} conflicts, {sum(expected.invalid.values())} invalid values; "
        f"{spread:,} records under keys of buckets; all counted {behind:.1f} s later"
    )
    for fault, times in sorted(done.items(), key=lambda each: each[0].name):
        print(f"  {times:3} x {fault.value}")  # noqa: T201

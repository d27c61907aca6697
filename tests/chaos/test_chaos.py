"""Everything is killed, stopped and cut off while events are sent, and then every figure is that of the oracle.

`make chaos SEED=7` repeats a schedule, of ten minutes or as many as MINUTES says; pytest alone runs a short one of a
fixed seed. What is sent is seeded, too, but which answers get lost is not: the oracle goes by what Kafka has and by
what was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord
from servers import service_directory

from tenantry.testing import eventually

from .comparing import compare
from .entitlements import METER, QUOTA
from .faults import inflict
from .installation import EVENTS, Installation
from .oracle import METERS, Expected, expect
from .schedule import Fault, schedule
from .workload import Workload

SHORT = 20261124
"""The seed of a run that nobody asks for another: it has every fault within half a minute."""

SEED = int(os.environ.get("CHAOS_SEED") or SHORT)
SECONDS = 60 * float(os.environ.get("CHAOS_MINUTES") or 0.5)
TENANTS = 25
# Between two batches of one sender; six of them send 40 events each.
PAUSE = 0.25
# Before the first fault and after the last one: in between most requests are not answered.
CALM_SECONDS = 5.0
TENANT_LENGTH = 36
"""A record's key begins with its tenant's id; a bucket may follow."""

_STORED = "SELECT kafka_partition, kafka_offset FROM pool.usage_event"


def test_the_short_schedule_has_every_fault():
    assert {step.fault for step in schedule(SHORT, 30)} == set(Fault)


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + 600)
async def test_nothing_is_lost_and_nothing_counts_twice():
    steps = schedule(SEED, SECONDS)
    with service_directory() as directory:
        async with Installation(directory, tenants=_tenants(SEED)) as installation:
            for slug, definition in METERS.items():
                await installation.put_meter(slug, dict(definition))
            for tenant in installation.tenants:
                await installation.put_quota(tenant, METER, QUOTA)
            workload = Workload(SEED, installation.tenants, installation.hot)
            over = asyncio.Event()
            sending = asyncio.create_task(workload.send(installation.client, until=over, pause=PAUSE))
            await asyncio.sleep(CALM_SECONDS)
            hits = await inflict(installation, steps, SECONDS)
            await asyncio.sleep(CALM_SECONDS)
            over.set()
            await asyncio.wait_for(sending, 120)
            behind = time.monotonic()
            await eventually(installation.settled, within=180, interval=0.5)
            behind = time.monotonic() - behind
            received = [each for each in await installation.read(EVENTS) if each.value is not None]
            ordered = await in_order(installation, received)
            # In a thread: everybody's connections pass through this one.
            expected = await asyncio.to_thread(expect, ordered)
            spread = sum(len(each.key) > TENANT_LENGTH for each in received)
            _report(workload, expected, hits, behind, spread)
            assert hits.keys() == {step.fault for step in steps}, "a fault has hit nothing"
            assert not installation.crashes, "\n".join(installation.crashes)
            assert workload.acknowledged, "nothing was accepted, so nothing was tried"
            assert workload.acknowledged <= expected.seen, "an acknowledged event is not in Kafka"
            assert workload.corrections <= expected.corrections, "an acknowledged correction is not in Kafka"
            await compare(installation, workload, expected)


async def in_order(installation: Installation, received: Sequence[ConsumerRecord]) -> list[ConsumerRecord]:
    """As copies win: by partition and offset; of hot tenants, whose copies have several keys, the stored ones first.

    Which one of those is stored is free. That it is one, and that all others are copies of it, the oracle sees.
    """
    stored = {tuple(row) for row in await installation.fetch(_STORED)}
    hot = {tenant.encode() for tenant in installation.hot}

    def place(each: ConsumerRecord) -> tuple[bool, int, int]:
        free = each.key[:TENANT_LENGTH] in hot and (each.partition, each.offset) not in stored
        return free, each.partition, each.offset

    return sorted(received, key=place)


def _tenants(seed: int) -> list[str]:
    dice = random.Random(seed)  # noqa: S311
    return [str(UUID(int=dice.getrandbits(128), version=4)) for _ in range(TENANTS)]


def _report(workload: Workload, expected: Expected, hits: Counter[Fault], behind: float, spread: int) -> None:
    print(  # noqa: T201 - what a long run has to show
        f"\nseed {SEED}, {SECONDS:.0f} s: {len(workload.acknowledged):,} events acknowledged, "
        f"{len(workload.refused)} refused as too old, {workload.repeated} requests repeated, "
        f"{expected.stored:,} events kept, {expected.cancelled:,} of them "
        f"cancelled by {len(expected.corrections):,} corrections, {len(expected.windows):,} windows, "
        f"{sum(expected.conflicts.values())} conflicts, {sum(expected.invalid.values())} invalid values; "
        f"{spread:,} records under keys of buckets; all counted {behind:.1f} s later"
    )
    for fault, times in sorted(hits.items(), key=lambda each: each[0].name):
        print(f"  {times:3} x {fault.value}")  # noqa: T201

"""Until the watermark everything that was received is in the figures."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from tenantry.testing import eventually

from .support import API_CALLS, event

SPAN = {
    "from": (datetime.now(UTC) - timedelta(days=1)).isoformat(),
    "to": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
}
PARKED = 'SELECT partition, received_at FROM system.parked_record ORDER BY "offset"'


async def watermark(usage, tenant) -> datetime:
    return datetime.fromisoformat((await usage.query(tenant, "api-calls", **SPAN))["watermark"])


async def figure(usage, tenant) -> str:
    [item] = (await usage.query(tenant, "api-calls", **SPAN))["items"]
    return item["value"]


async def test_it_stays_before_an_event_that_is_parked(usage, tenant_a, tenant_factory):
    """A tenant that the worker learns of later, while others are counted and partitions are idle."""
    await usage.put_meter("api-calls", API_CALLS)
    late = tenant_factory()
    async with usage.metering(), usage.relaying():
        await usage.produce([json.dumps(event(late, 1)).encode()], [late.id])
        await eventually(lambda: usage.fetch(PARKED), within=60)
        [(partition, received)] = await usage.fetch(PARKED)
        # The same partition goes on, with what wakes its owner and with other tenants' events.
        await usage.send(*[event(tenant_a, number) for number in range(5)])

        async def others_passed() -> bool:
            [[until, rows]] = await usage.fetch(
                "SELECT min(received_until), count(*) FROM system.partition_progress WHERE partition <> $1", partition
            )
            return bool(rows == 11 and until > received + timedelta(seconds=2))

        await eventually(others_passed, within=60)
        assert await watermark(usage, tenant_a) == received - timedelta(microseconds=1)

        usage.state.directory.upsert(late)

        async def passed() -> bool:
            return await watermark(usage, tenant_a) > received

        await eventually(passed, within=60)
        assert await figure(usage, late) == "1"


async def test_a_partition_that_nobody_has_counted_yet_holds_it_back(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    before = datetime.now(UTC) - timedelta(minutes=1)
    await usage.send(event(tenant_a, 1))
    async with usage.relaying():

        async def idle_partitions_passed() -> bool:
            [[passed]] = await usage.fetch(
                "SELECT count(*) FROM system.partition_progress WHERE received_until > $1", before
            )
            return bool(passed == 11)

        await eventually(idle_partitions_passed, within=60)
        assert await watermark(usage, tenant_a) < before
        async with usage.metering():

            async def passed() -> bool:
                return await watermark(usage, tenant_a) > before

            await eventually(passed, within=60)
        assert await figure(usage, tenant_a) == "1"

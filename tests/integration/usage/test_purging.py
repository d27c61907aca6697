"""A tenant that is purged leaves no rollups on the topic: tombstones withdraw what was published."""

from __future__ import annotations

import msgspec
from broker import read_topic

from tenantry import SystemClock, uuid7
from tenantry.events import Request
from tenantry.offboarding import PURGE, OffboardingWorker, offboarding_handlers
from tenantry.testing import eventually
from usage_service.data_catalogue import CATALOGUE
from usage_service.publishing.rollups import queue_erased

from .support import API_CALLS, event

ROLLUPS = "usage.rollups.v1"
CLOCK = SystemClock()


def request_of(tenant) -> Request:
    data = {"idempotency_key": str(uuid7()), "tenant": msgspec.to_builtins(tenant)}
    return Request(request_id=uuid7(), kind=PURGE, services=("usage",), tenant_id=tenant.id, data=data)


async def test_a_purge_withdraws_the_rollups_of_the_tenant_and_of_no_other(usage, tenant_a, tenant_b):
    await usage.put_meter("api-calls", API_CALLS)
    handlers = offboarding_handlers(usage.databases, CATALOGUE, CLOCK, exports=False)
    worker = OffboardingWorker(usage.databases, CATALOGUE, CLOCK, batch_rows=1, erased={"usage_rollup": queue_erased})
    async with usage.relaying():
        async with usage.metering():
            for tenant in (tenant_a, tenant_b):
                await usage.send(event(tenant, 1), event(tenant, 2, data={"method": "POST", "path": "/b"}))
            await eventually(usage.counted, within=60)
        await eventually(lambda: relayed(usage), within=60)
        before = {record.key: record.value for record in await read_topic(usage.kafka, ROLLUPS)}
        assert len(before) == 4

        await handlers[PURGE](request_of(tenant_a))
        while await worker.turn():
            pass
        await eventually(lambda: relayed(usage), within=60)
        after = {record.key: record.value for record in await read_topic(usage.kafka, ROLLUPS)}

    mine = {key for key in before if key.startswith(str(tenant_a.id).encode())}
    assert len(mine) == 2
    assert after == before | dict.fromkeys(mine)
    left = await usage.fetch("SELECT tenant_id FROM pool.usage_rollup")
    assert {row["tenant_id"] for row in left} == {tenant_b.id}


async def relayed(usage) -> bool:
    return not await usage.fetch("SELECT FROM system.rollup_change")

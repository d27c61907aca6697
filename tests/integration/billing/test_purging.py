"""A tenant that is purged leaves nothing of its standing on the topic, which is kept for ever."""

import msgspec
from sqlalchemy import text

from billing_service.catalogue import CATALOGUE
from billing_service.subscriptions.service import STATE_TOPIC, withdraw_standings
from tenantry import SystemClock, Tenant, uuid7
from tenantry.events import Request
from tenantry.offboarding import PURGE, OffboardingWorker, offboarding_handlers

from .support import Billing

CLOCK = SystemClock()


async def test_a_purge_withdraws_the_standing_of_the_tenant_and_of_no_other(
    billing: Billing, tenant_a: Tenant, tenant_b: Tenant
) -> None:
    await billing.put_plan()
    await billing.subscribe(tenant_a)
    await billing.subscribe(tenant_b)
    handlers = offboarding_handlers(billing.databases, CATALOGUE, CLOCK, exports=False)
    worker = OffboardingWorker(billing.databases, CATALOGUE, CLOCK, erased={"standing": withdraw_standings})
    data = {"idempotency_key": str(uuid7()), "tenant": msgspec.to_builtins(tenant_a)}

    await handlers[PURGE](
        Request(request_id=uuid7(), kind=PURGE, services=("billing",), tenant_id=tenant_a.id, data=data)
    )
    while await worker.turn():
        pass

    async with billing.databases.system.connect() as connection:
        statement = text("SELECT key, version, payload IS NULL AS gone FROM system.outbox WHERE topic = :topic")
        rows = (await connection.execute(statement.bindparams(topic=STATE_TOPIC))).all()
    assert {(row.key, row.version, row.gone) for row in rows} == {
        (str(tenant_a.id), 1, False),
        (str(tenant_b.id), 1, False),
        (str(tenant_a.id), 2, True),
    }

"""What billing says of a tenant suspends it or lifts that, once, in the consumer's own transaction."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord

from tenant_service.tenants.consumers import BILLING_EVENTS, billing_handler
from tenantry import TenantStatus
from tenantry.events import Event, InvalidRecords, encode

DELINQUENT, PAID = "billing.delinquent.v1", "billing.paid.v1"


def record(kind, tenant_id, data=None):
    event = Event(
        id=uuid4(),
        type=kind,
        source="billing",
        key=str(tenant_id),
        tenant_id=tenant_id,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        data={"tenant_id": str(tenant_id)} if data is None else data,
        version=1,
    )
    key, value, headers = encode(event)
    return ConsumerRecord(BILLING_EVENTS, 0, 0, 0, 0, key, value, None, 0, 0, tuple(headers))


async def consume(platform, *records):
    async with platform.transactions.begin() as session:
        await billing_handler(platform.clock)(await session.connection(), records)


async def test_whoever_does_not_pay_is_suspended_until_they_pay(platform):
    tenant = await platform.activate()
    await platform.suspend(tenant.id)
    await consume(platform, record(DELINQUENT, tenant.id))
    await consume(platform, record(DELINQUENT, tenant.id))
    assert (await platform.get(tenant.id)).suspension_reasons == ("abuse", "billing")
    await consume(platform, record(PAID, tenant.id), record(PAID, tenant.id))
    paid = await platform.get(tenant.id)
    assert (paid.status, paid.suspension_reasons) == (TenantStatus.SUSPENDED, ("abuse",))
    assert (await platform.audit(tenant.id))[4:] == ["tenant.suspend", "tenant.reactivate"]
    stories = await platform.outbox("tenant.events.v1", str(tenant.id))
    assert [row["type"] for row in stories[4:]] == ["tenant.suspended.v1", "tenant.reactivated.v1"]


async def test_records_of_a_tenant_are_applied_in_their_order(platform):
    tenant, other = await platform.activate(), await platform.activate()
    await consume(
        platform,
        record(DELINQUENT, tenant.id),
        record(DELINQUENT, other.id),
        record(PAID, tenant.id),
        record(DELINQUENT, tenant.id),
        record(PAID, other.id),
    )
    assert (await platform.get(tenant.id)).suspension_reasons == ("billing",)
    assert (await platform.get(other.id)).suspension_reasons == ()
    assert (await platform.audit(tenant.id))[3:] == ["tenant.suspend", "tenant.reactivate", "tenant.suspend"]


async def test_other_events_and_tenants_that_cannot_be_suspended_are_left_alone(platform):
    requested = await platform.create()
    await consume(platform, record("billing.invoice_finalized.v1", uuid4()), record(DELINQUENT, requested.id))
    assert (await platform.get(requested.id)).version == 1


@pytest.mark.parametrize("data", [{}, {"tenant_id": None}, None])
async def test_what_cannot_be_applied_is_a_dead_letter(platform, data):
    good, bad = await platform.activate(), uuid4()
    records = [record(DELINQUENT, good.id), record(DELINQUENT, bad, data)]
    with pytest.raises(InvalidRecords) as refused:
        await consume(platform, *records)
    assert [each.record for each in refused.value.invalid] == [records[1]]
    assert (await platform.get(good.id)).status is TenantStatus.ACTIVE


async def test_the_other_processes_hear_of_it(platform):
    tenant = await platform.activate()
    heard = []
    async with platform.database.connect() as connection:
        await connection.add_listener("tenant_changed", lambda *args: heard.append(args[-1]))
        await consume(platform, record(DELINQUENT, tenant.id))
        await connection.execute("SELECT 1")
    assert heard == [f'["tenant:{tenant.id}:{tenant.version + 1}"]']

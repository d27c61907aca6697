"""When a process says that it works by a tenant's new state."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tenantry import InvalidRequest, Tenant, TenantId, TenantStatus, uuid7
from tenantry.events import STATE_APPLIED, KafkaDirectory, KafkaSettings, NotYet, Request, state_applied

ID = TenantId(uuid7())


def tenant(version: int) -> Tenant:
    return Tenant(
        id=ID,
        slug="acme",
        name="Acme",
        status=TenantStatus.ACTIVE,
        tier="standard",
        version=version,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def request(version: object, tenant_id: UUID | None = ID) -> Request:
    return Request(
        request_id=uuid7(), kind=STATE_APPLIED, services=("app",), tenant_id=tenant_id, data={"version": version}
    )


@pytest.fixture
def directory() -> KafkaDirectory:
    return KafkaDirectory(KafkaSettings())


async def test_a_version_that_is_known_or_older_is_confirmed_at_once(directory):
    directory.directory.upsert(tenant(5))
    confirm = state_applied(directory, within_seconds=0)
    assert await confirm(request(5)) == {"version": 5}
    assert await confirm(request(4)) == {"version": 4}
    with pytest.raises(NotYet) as refused:
        await confirm(request(6))
    assert refused.value.code == "state-not-applied"


async def test_a_version_that_arrives_is_waited_for(directory):
    directory.directory.upsert(tenant(5))
    confirming = asyncio.ensure_future(state_applied(directory, within_seconds=30)(request(6)))
    await asyncio.sleep(0)
    assert not confirming.done()
    directory.directory.upsert(tenant(6))
    directory._wake()
    assert await confirming == {"version": 6}


async def test_a_tenant_that_is_gone_for_ever_needs_no_state(directory):
    directory.directory.upsert(tenant(5))
    directory.directory.remove(ID)
    assert await state_applied(directory, within_seconds=0)(request(6)) == {"version": 6}


@pytest.mark.parametrize("bad", [request(None), request("6"), request(6, None)])
async def test_a_request_that_cannot_be_read_fails_with_a_reason(directory, bad):
    with pytest.raises(InvalidRequest):
        await state_applied(directory)(bad)

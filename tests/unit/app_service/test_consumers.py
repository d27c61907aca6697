from datetime import UTC, datetime, timedelta

import pytest

from app_service.consumers import ADVANCE_CLOCK, clock_shows, request_handlers
from tenantry import InvalidRequest, LocalDirectory, TenantClock, uuid7
from tenantry.database import DatabaseSettings, Places
from tenantry.events import PROVISION_TENANT, RELEASE_TENANT, KafkaDirectory, KafkaSettings, Request

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=30)


def test_a_clock_shows_an_instant_when_all_its_tenants_live_in_it(tenant_factory):
    clock, other = uuid7(), uuid7()
    directory = LocalDirectory.of(
        [
            tenant_factory(),
            tenant_factory(clock=TenantClock(other, NOON)),
            tenant_factory(clock=TenantClock(clock, LATER)),
            late := tenant_factory(clock=TenantClock(clock, NOON)),
        ]
    )
    assert clock_shows(directory, clock, NOON)
    assert not clock_shows(directory, clock, LATER)
    directory.remove(late.id)
    assert clock_shows(directory, clock, LATER)


def test_a_clock_without_tenants_shows_anything():
    assert clock_shows(LocalDirectory.of([]), uuid7(), NOON)


@pytest.mark.parametrize(
    ("kind", "tenant_id", "data"),
    [
        (PROVISION_TENANT, None, {"placement": {"store": "primary", "isolation": "pool", "epoch": 1}}),
        (PROVISION_TENANT, uuid7(), {}),
        (RELEASE_TENANT, uuid7(), {}),
        (PROVISION_TENANT, uuid7(), {"placement": {"store": "primary", "isolation": "shelf", "epoch": 1}}),
        (ADVANCE_CLOCK, None, {"clock_id": "x", "to": NOON.isoformat()}),
        (ADVANCE_CLOCK, None, {"clock_id": str(uuid7())}),
    ],
)
async def test_a_request_that_cannot_be_read_fails_with_a_reason(kind, tenant_id, data):
    places = Places("app", DatabaseSettings(database_url="postgresql://nowhere.test/none"))
    handlers = request_handlers(KafkaDirectory(KafkaSettings()), places, clock_wait_seconds=1)
    request = Request(request_id=uuid7(), kind=kind, services=("app",), tenant_id=tenant_id, data=data)
    with pytest.raises(InvalidRequest):
        await handlers[kind](request)

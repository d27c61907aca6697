from datetime import UTC, datetime, timedelta

import pytest

from app_service.consumers import ADVANCE_CLOCK, PROVISION, clock_shows, request_handlers
from tenantry import InvalidRequest, LocalDirectory, TenantClock, uuid7
from tenantry.events import KafkaDirectory, KafkaSettings, Request

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
        (PROVISION, None, {"placement": {"store": "default", "isolation": "pool", "epoch": 1}}),
        (PROVISION, uuid7(), {}),
        (PROVISION, uuid7(), {"placement": {"store": "default", "isolation": "shelf", "epoch": 1}}),
        (ADVANCE_CLOCK, None, {"clock_id": "x", "to": NOON.isoformat()}),
        (ADVANCE_CLOCK, None, {"clock_id": str(uuid7())}),
    ],
)
async def test_a_request_that_cannot_be_read_fails_with_a_reason(kind, tenant_id, data):
    handlers = request_handlers(
        KafkaDirectory(KafkaSettings()), provisioner_url="postgresql://nowhere.test/none", clock_wait_seconds=1
    )
    request = Request(request_id=uuid7(), kind=kind, services=("app",), tenant_id=tenant_id, data=data)
    with pytest.raises(InvalidRequest):
        await handlers[kind](request)

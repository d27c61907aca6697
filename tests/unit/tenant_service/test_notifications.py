"""What the other processes are told of a transaction."""

import json
from datetime import UTC, datetime

import pytest

from tenant_service.transactions import EVERYTHING, KEYS_AT_ONCE, MAX_KEYS, notifications
from tenantry import Tenant, TenantId, TenantStatus, uuid7


def tenants(count: int) -> list[Tenant]:
    return [
        Tenant(
            id=TenantId(uuid7()),
            slug=f"t-{number}",
            name="T",
            status=TenantStatus.ACTIVE,
            tier="standard",
            version=1,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, KEYS_AT_ONCE, KEYS_AT_ONCE + 1, 250])
def test_every_tenant_is_named_once_in_notifications_that_fit(count):
    changes = tenants(count)
    told = notifications([*changes, *changes])
    assert all(len(each) < 8000 for each in told)
    named = [key for each in told for key in json.loads(each)]
    assert sorted(named) == sorted(f"tenant:{tenant.id}:1" for tenant in changes)


def test_too_many_are_everything():
    assert notifications(tenants(MAX_KEYS + 1)) == [json.dumps([EVERYTHING])]

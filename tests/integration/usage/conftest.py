from __future__ import annotations

import pytest

from tenantry import Tier

from .support import open_usage


@pytest.fixture
async def usage(service_database, kafka_bootstrap, kafka_prefix, tenant_a, tenant_b, request):
    """The HTTP application on an emptied database; topics are the test's own."""
    database = service_database("usage")
    await database.truncate()
    prefix = f"{kafka_prefix}{abs(hash(request.node.name)) % 100_000}."
    service = await open_usage(database, kafka_bootstrap, prefix)
    service.state.directory.upsert_tier(Tier(name="standard", version=1))
    for tenant in (tenant_a, tenant_b):
        service.state.directory.upsert(tenant)
    async with service.running():
        yield service

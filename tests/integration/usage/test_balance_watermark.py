"""The watermark on `usage.balances.v1`: what a product knows of counting that stands still."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY

from tenantry import Unavailable
from tenantry.entitlements import BalanceReader, BalanceStore, Entitlements
from tenantry.events import OutboxRelay, create_topics
from tenantry.testing import eventually
from usage_service.entitlements.watermark import BalanceWatermark, reached_by_balances

from .quotas import settle
from .support import event, running


@asynccontextmanager
async def following(usage):
    """What the relay does beside counting and working balances out, and a product that follows it."""
    await create_topics(usage.kafka, only=["usage.balances.v1", "usage.alerts.v1"])
    store = BalanceStore()
    reader = BalanceReader(usage.kafka, store)
    engine = usage.databases.system
    try:
        async with (
            usage.relaying(),
            running(OutboxRelay("usage", engine, usage.kafka).run(), BalanceWatermark(engine, usage.kafka).run()),
        ):
            await reader.start()
            yield reader, store
    finally:
        await reader.stop()


async def test_it_comes_behind_the_balances_that_it_is_true_of(usage, quota, keeper, tenant_a):
    await settle(keeper)
    async with following(usage) as (_, store):
        async with usage.metering():
            await usage.send(event(tenant_a, 1))
            await eventually(usage.counted, within=60)
            received = datetime.now(UTC)
            await eventually(lambda: usage.fetch("SELECT FROM system.balance_change"), within=60)
            async with usage.databases.system.connect() as opened:
                connection = await opened.execution_options(isolation_level="AUTOCOMMIT")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await reached_by_balances(connection)
            assert store.watermark is None or store.watermark < received
            await settle(keeper)
            await eventually(lambda: store.watermark is not None and store.watermark >= received, within=60)
        assert store.get(tenant_a.id, "api-calls").usage == 1
    # What an operator is alerted by grows where nothing is read any more.
    await eventually(lambda: shown("state_lag_seconds", topics="usage.balances.v1") > 1)
    await eventually(lambda: shown("tenantry_balances_age_seconds") > 1)


def shown(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


async def test_a_product_that_reads_everything_refuses_while_nothing_is_counted(usage, quota, keeper, tenant_a):
    async with following(usage) as (reader, store), running(keeper.run()):
        product = Entitlements(store, lag_seconds=lambda: reader.lag_seconds, max_staleness_seconds=8.0)

        def allowed() -> bool:
            try:
                return product.check("api-calls", tenant=tenant_a).balance is not None
            except Unavailable:
                assert reader.lag_seconds < 8
                return False

        async with usage.metering():
            await usage.send(event(tenant_a, 1))
            await eventually(lambda: store.get(tenant_a.id, "api-calls") is not None and allowed(), within=60)
        await usage.send(event(tenant_a, 2))
        await eventually(lambda: not allowed(), within=60, interval=0.5)
        async with usage.metering():
            await eventually(allowed, within=60)

"""How far what follows the events is behind them, as the metrics say."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from tenantry.testing import eventually
from usage_service.publishing.lags import BALANCES, ROLLUPS, WATERMARK, observe_lags, watch_lags


def seen():
    return [sample.value for gauge in (WATERMARK, ROLLUPS, BALANCES) for sample in next(iter(gauge.collect())).samples]


async def test_nothing_waits_where_nothing_came(usage):
    await observe_lags(usage.databases.system, datetime.now(UTC))
    assert seen() == [0, 0, 0]


async def test_what_waits_longest_is_what_is_said(usage, tenant_a):
    now = datetime.now(UTC)
    for partition, seconds in enumerate((5, 90, 1)):
        received = now - timedelta(seconds=seconds)
        await usage.fetch("INSERT INTO system.partition_progress VALUES ($1, $2)", partition, received)
    for lane, seconds in ((0, 2), (1, 40)):
        milliseconds = int((now - timedelta(seconds=seconds)).timestamp() * 1000)
        await usage.fetch(
            "INSERT INTO system.rollup_change (lane, id, tenant_ids, meter_ids, window_starts, group_hashes)"
            " VALUES ($1, $2, '{}', '{}', '{}', '{}')",
            lane, f"{milliseconds:012x}70008000000000000000",
        )  # fmt: skip
    await usage.fetch(
        "INSERT INTO system.balance_change (tenant_id, feature) SELECT $1, 'x' FROM generate_series(1, 7)", tenant_a.id
    )
    await observe_lags(usage.databases.system, now)
    watermark, rollups, balances = seen()
    assert (round(watermark), round(rollups), balances) == (90, 40, 7)


async def test_who_does_not_look_says_nothing(usage):
    watching = asyncio.create_task(watch_lags(usage.databases.system))
    await eventually(lambda: seen() == [0, 0, 0])
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert seen() == []

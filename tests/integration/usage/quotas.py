"""Quotas over HTTP, usage as the meter worker would leave it, and what is published of both."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec

from tenantry import TenantClock, uuid7

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


async def put(usage, tenant, path, body, headers=None):
    return await usage.http.put(f"/v1/tenants/{tenant.id}/{path}", json=body, headers=headers or usage.operator)


async def post(usage, tenant, path, body=None, **headers):
    return await usage.http.post(f"/v1/tenants/{tenant.id}/{path}", json=body, headers=usage.operator | headers)


async def get(usage, tenant, path, headers=None):
    return await usage.http.get(f"/v1/tenants/{tenant.id}/{path}", headers=headers or usage.tenant_key(tenant))


async def value(usage, tenant, feature="api-calls"):
    answer = await get(usage, tenant, f"entitlements/{feature}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def count(usage, tenant, number, *, at=NOW, slug="api-calls"):
    """Sets what the meter has counted in an hour, as a batch of the worker would leave it."""
    async with usage.database.connect("system") as connection, connection.transaction():
        [meter] = await connection.fetch("SELECT id FROM system.meter WHERE slug = $1 AND until IS NULL", slug)
        await connection.execute(
            """
            INSERT INTO pool.usage_rollup (tenant_id, meter_id, window_start, group_hash, version, count, groups)
            VALUES ($1, $2, $3, $4, 1, $5, '{}')
            ON CONFLICT (tenant_id, meter_id, window_start, group_hash)
            DO UPDATE SET count = excluded.count, version = usage_rollup.version + 1
            """,
            tenant.id, meter["id"], at, uuid7() if number < 0 else tenant.id, number,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO system.balance_change (tenant_id, feature) VALUES ($1, $2)", tenant.id, slug
        )


async def published(usage, topic):
    rows = await usage.fetch(
        "SELECT key, version, payload FROM system.outbox WHERE topic = $1 ORDER BY version, id", topic
    )
    return [(row["key"], row["version"], row["payload"] and json.loads(row["payload"])) for row in rows]


async def settle(keeper):
    while await keeper.step():
        pass


def set_clock(usage, tenant, now):
    """Has a tenant live at an instant, by a test clock."""
    version = usage.state.directory.get(tenant.id).version + 1
    clock = TenantClock(tenant.id, now)
    usage.state.directory.upsert(msgspec.structs.replace(tenant, clock=clock, version=version))

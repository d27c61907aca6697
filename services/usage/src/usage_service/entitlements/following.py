"""Copies what entitles tenants, of `tenant.state.v1`, `platform.state.v1` and `billing.state.v1`.

A tenant has one row, with its tier and its plans; tiers have one each. What a tenant has of a feature follows from
them when it is asked for. A change queues the balances that it may change, in the same transaction: those that were
published before, and those of features that the tenant has used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry import Tenant, TenantStatus, Tier
from tenantry.entitlements import BillingState, readable_entitlements
from tenantry.events import InvalidRecord, KafkaSettings, version_of

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

GROUP: Final = "usage-entitled"
TENANTS: Final = "tenant.state.v1"
TIERS: Final = "platform.state.v1"
BILLING: Final = "billing.state.v1"
TOPICS: Final = (TENANTS, TIERS, BILLING)

_TIER: Final = b"tier/"

# A tier and a tenant on it may come at the same time, in two transactions of which neither sees the other's row.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('usage.entitled', 0))")
# Tells which of the tenants are on another tier than before.
_PUT_TENANTS: Final = text(
    """
    WITH given AS (
        SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:tiers AS text[]), CAST(:versions AS bigint[]))
               AS given (tenant_id, tier, version)),
    moved AS (
        SELECT given.tenant_id FROM given LEFT JOIN pool.entitled_tenant AS known USING (tenant_id)
         WHERE known.tier IS DISTINCT FROM given.tier AND COALESCE(known.tenant_version, -1) < given.version),
    stored AS (
        INSERT INTO pool.entitled_tenant AS known (tenant_id, tier, tenant_version) SELECT * FROM given
        ON CONFLICT (tenant_id) DO UPDATE SET tier = excluded.tier, tenant_version = excluded.tenant_version
         WHERE known.tenant_version < excluded.tenant_version)
    SELECT tenant_id FROM moved
    """
)
_PUT_PLANS: Final = text(
    """
    INSERT INTO pool.entitled_tenant AS known (tenant_id, plans, metered, billing_version)
    SELECT tenant_id, CAST(plans AS jsonb), ARRAY(SELECT jsonb_array_elements_text(CAST(metered AS jsonb))), version
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:plans AS text[]), CAST(:metered AS text[]),
                  CAST(:versions AS bigint[])) AS given (tenant_id, plans, metered, version)
    ON CONFLICT (tenant_id) DO UPDATE SET
           plans = excluded.plans, metered = excluded.metered, billing_version = excluded.billing_version
     WHERE known.billing_version < excluded.billing_version
    RETURNING tenant_id
    """
)
_PUT_TIERS: Final = text(
    """
    WITH given AS (
        SELECT name, version, CAST(entitlements AS jsonb) AS entitlements,
               ARRAY(SELECT jsonb_array_elements_text(CAST(metered AS jsonb))) AS metered
          FROM unnest(CAST(:names AS text[]), CAST(:versions AS bigint[]), CAST(:entitlements AS text[]),
                      CAST(:metered AS text[])) AS given (name, version, entitlements, metered)),
    changed AS (
        SELECT given.name FROM given LEFT JOIN system.entitlement_tier AS known USING (name)
         WHERE known.entitlements IS DISTINCT FROM given.entitlements AND COALESCE(known.version, -1) < given.version),
    stored AS (
        INSERT INTO system.entitlement_tier AS known (name, version, entitlements, metered)
        SELECT name, version, entitlements, metered FROM given
        ON CONFLICT (name) DO UPDATE SET
               version = excluded.version, entitlements = excluded.entitlements, metered = excluded.metered
         WHERE known.version < excluded.version)
    SELECT name FROM changed
    """
)
_FORGET: Final = text("DELETE FROM pool.entitled_tenant WHERE tenant_id = ANY(CAST(:tenants AS uuid[]))")
_QUEUE: Final = """
WITH concerned AS (SELECT tenant_id, tier, metered FROM pool.entitled_tenant AS entitled WHERE {concerned})
INSERT INTO system.balance_change (tenant_id, feature)
SELECT balance.tenant_id, balance.feature FROM concerned JOIN pool.entitlement_balance AS balance USING (tenant_id)
 UNION
SELECT concerned.tenant_id, named.feature
  FROM concerned
  LEFT JOIN system.entitlement_tier AS tier ON tier.name = concerned.tier
 CROSS JOIN LATERAL unnest(concerned.metered || COALESCE(tier.metered, '{{}}')) AS named (feature)
  LEFT JOIN system.feature AS feature ON feature.slug = named.feature
 WHERE EXISTS (SELECT FROM system.meter AS meter
                 JOIN pool.usage_rollup AS rollup ON rollup.meter_id = meter.id
                WHERE meter.slug = COALESCE(feature.meter, named.feature)
                  AND rollup.tenant_id = concerned.tenant_id)
"""
_QUEUE_TENANTS: Final = text(_QUEUE.format(concerned="entitled.tenant_id = ANY(CAST(:concerned AS uuid[]))"))
_QUEUE_TIERS: Final = text(_QUEUE.format(concerned="entitled.tier = ANY(CAST(:concerned AS text[]))"))
_QUEUE_FEATURE: Final = text(
    _QUEUE.format(
        concerned="""
        :concerned = ANY(entitled.metered)
        OR entitled.tier IN (SELECT name FROM system.entitlement_tier WHERE :concerned = ANY(metered))
        """
    )
)

_decode_tenant: Final = msgspec.json.Decoder(Tenant).decode
_decode_tier: Final = msgspec.json.Decoder(Tier).decode
_decode_billing: Final = msgspec.json.Decoder(BillingState).decode
_encode: Final = msgspec.json.encode


class EntitledFollower:
    """Handles batches of records. `is_purged` tells which tenants must never come back."""

    def __init__(self, kafka: KafkaSettings, is_purged: Callable[[UUID], bool]) -> None:
        self._is_purged = is_purged
        self._tenants, self._tiers, self._billing = (kafka.topic(topic) for topic in TOPICS)

    async def handle(self, connection: AsyncConnection, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        """Stores what the records say; the caller commits. May be repeated. Raises InvalidRecord."""
        tenants: dict[UUID, tuple[Tenant | None, int]] = {}
        tiers: dict[str, tuple[Tier, int]] = {}
        plans: dict[UUID, tuple[BillingState | None, int]] = {}
        for record in records:
            try:
                key, version = record.key or b"", version_of(record)
                if record.topic == self._tiers:
                    if key.startswith(_TIER) and record.value is not None:
                        tier = _decode_tier(record.value)
                        _keep_newest(tiers, tier.name, tier, tier.version)
                elif record.topic == self._tenants:
                    tenant = None if record.value is None else _decode_tenant(record.value)
                    _keep_newest(tenants, UUID(key.decode()), tenant, version if tenant is None else tenant.version)
                else:
                    state = None if record.value is None else _decode_billing(record.value)
                    if version is None and state is not None:
                        version = state.version
                    _keep_newest(plans, UUID(key.decode()), state, version)
            except (msgspec.MsgspecError, ValueError) as error:
                raise InvalidRecord(record, str(error)) from error
        await connection.execute(_LOCK)
        moved = await self._put_tenants(connection, tenants)
        moved |= await self._put_plans(connection, plans)
        changed = await _put_tiers(connection, tiers)
        for statement, concerned in ((_QUEUE_TENANTS, moved), (_QUEUE_TIERS, changed)):
            if concerned:
                await connection.execute(statement, {"concerned": list(concerned)})

    async def _put_tenants(
        self, connection: AsyncConnection, found: Mapping[UUID, tuple[Tenant | None, int]]
    ) -> set[UUID]:
        gone = {tenant_id for tenant_id, (tenant, _) in found.items() if tenant is None or _is_gone(tenant)}
        kept = [tenant for tenant, _ in found.values() if tenant is not None and tenant.id not in gone]
        kept = [tenant for tenant in kept if not self._is_purged(tenant.id)]
        if gone:
            await connection.execute(_FORGET, {"tenants": list(gone)})
        if not kept:
            return set()
        moved = await connection.execute(
            _PUT_TENANTS,
            {
                "tenants": [tenant.id for tenant in kept],
                "tiers": [tenant.tier for tenant in kept],
                "versions": [tenant.version for tenant in kept],
            },
        )
        return set(moved.scalars())

    async def _put_plans(
        self, connection: AsyncConnection, found: Mapping[UUID, tuple[BillingState | None, int]]
    ) -> set[UUID]:
        kept = {tenant_id: each for tenant_id, each in found.items() if not self._is_purged(tenant_id)}
        if not kept:
            return set()
        held = {tenant_id: () if state is None else state.held for tenant_id, (state, _) in kept.items()}
        moved = await connection.execute(
            _PUT_PLANS,
            {
                "tenants": list(kept),
                "plans": [_encode(plans).decode() for plans in held.values()],
                "metered": [
                    _encode(
                        sorted({name for plan in plans for name in _metered(plan.entitlements, of="plan")})
                    ).decode()
                    for plans in held.values()
                ],
                "versions": [version for _, version in kept.values()],
            },
        )
        return set(moved.scalars())


async def queue_feature(session: AsyncSession, feature: str) -> None:
    """Has a feature that tiers and plans gave before it was made worked out for the tenants that have used it."""
    await session.execute(_QUEUE_FEATURE, {"concerned": feature})


async def _put_tiers(connection: AsyncConnection, found: Mapping[str, tuple[Tier, int]]) -> Collection[str]:
    if not found:
        return ()
    tiers = [tier for tier, _ in found.values()]
    changed = await connection.execute(
        _PUT_TIERS,
        {
            "names": [tier.name for tier in tiers],
            "versions": [tier.version for tier in tiers],
            "entitlements": [_encode(tier.entitlements).decode() for tier in tiers],
            "metered": [_encode(_metered(tier.entitlements, of="tier")).decode() for tier in tiers],
        },
    )
    return changed.scalars().all()


def _keep_newest(found: dict[Any, tuple[Any, int]], key: object, value: object, version: int | None) -> None:
    if version is None:
        raise ValueError("no version")
    if key not in found or found[key][1] < version:
        found[key] = (value, version)


def _is_gone(tenant: Tenant) -> bool:
    return tenant.status in {TenantStatus.PURGING, TenantStatus.PURGED}


def _metered(document: Mapping[str, Any], *, of: Any) -> list[str]:
    return [feature for feature, terms in readable_entitlements(document, of=of).items() if terms.quota is not None]

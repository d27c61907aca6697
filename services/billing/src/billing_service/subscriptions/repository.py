"""All SQL of subscriptions. Nothing here commits; a bound session sees its tenant only."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.domain.numbers import parse_number
from billing_service.domain.periods import Anchor
from billing_service.subscriptions.models import Subscription

_COLUMNS: Final = (
    "tenant_id, id, account, seller_code, plan_code, plan_version, currency, CAST(quantities AS text) AS quantities, "
    "time_zone, anchor, start_at, ends_at, version, created_at"
)
_INSERT: Final = text(
    """
    INSERT INTO subscription (tenant_id, id, account, seller_code, plan_code, plan_version, currency, quantities,
                              time_zone, anchor, start_at, ends_at, version, created_at)
    VALUES (:tenant_id, :id, :account, :seller_code, :plan_code, :plan_version, :currency,
            CAST(:quantities AS jsonb), :time_zone, :anchor, :start_at, :ends_at, :version, :created_at)
    """
)
_FIND: Final = text(f"SELECT {_COLUMNS} FROM subscription WHERE id = :id")  # noqa: S608 - constant columns
_LOCK: Final = text(f"SELECT {_COLUMNS} FROM subscription WHERE id = :id FOR UPDATE")  # noqa: S608 - constant columns
_PAGE: Final = text(
    f"""
    SELECT {_COLUMNS} FROM subscription
     WHERE (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id) AND id > :after ORDER BY id LIMIT :limit
    """  # noqa: S608 - constant columns
)
# Whoever writes drafts of a subscription holds its row shared until they are committed.
_HOLD: Final = text(
    f"""
    SELECT {_COLUMNS} FROM subscription
      JOIN unnest(CAST(:tenant_ids AS uuid[]), CAST(:ids AS uuid[])) AS wanted (tenant_id, id) USING (tenant_id, id)
     ORDER BY tenant_id, id FOR SHARE OF subscription
    """  # noqa: S608 - constant columns
)
_ENDS: Final = text(
    """
    UPDATE subscription SET ends_at = :ends_at, version = version + 1
     WHERE tenant_id = :tenant_id AND id = :id
    """
)
# The row's lock is what puts the versions of a tenant's standing in commit order.
_BUMP_STANDING: Final = text(
    """
    INSERT INTO standing AS stored (tenant_id, version) VALUES (:tenant_id, 1)
        ON CONFLICT (tenant_id) DO UPDATE SET version = stored.version + 1
    RETURNING version, bill_from
    """
)
_OF_TENANT: Final = text(
    f"SELECT {_COLUMNS} FROM subscription WHERE tenant_id = :tenant_id ORDER BY id"  # noqa: S608 - constant columns
)
_BILLED: Final = text(
    """
    SELECT billed.tenant_id, billed.subscription_id, array_agg(billed.period_from) AS starts
      FROM billed_period AS billed
      JOIN unnest(CAST(:tenant_ids AS uuid[]), CAST(:ids AS uuid[])) AS wanted (tenant_id, subscription_id)
     USING (tenant_id, subscription_id)
     WHERE billed.kind = :kind
     GROUP BY billed.tenant_id, billed.subscription_id
    """
)

_encode = msgspec.json.Encoder(decimal_format="string").encode
_decode = msgspec.json.Decoder(dict[str, str]).decode


def _subscription(row: Row[Any]) -> Subscription:
    values = row._asdict()
    values["quantities"] = {name: parse_number(value) for name, value in _decode(row.quantities).items()}
    values["anchor"] = Anchor(row.anchor)
    return Subscription(**values)


async def insert(session: AsyncSession, subscription: Subscription) -> None:
    await session.execute(
        _INSERT,
        {
            "tenant_id": subscription.tenant_id,
            "id": subscription.id,
            "account": subscription.account,
            "seller_code": subscription.seller_code,
            "plan_code": subscription.plan_code,
            "plan_version": subscription.plan_version,
            "currency": subscription.currency,
            "quantities": _encode(subscription.quantities).decode(),
            "time_zone": subscription.time_zone,
            "anchor": subscription.anchor.value,
            "start_at": subscription.start_at,
            "ends_at": subscription.ends_at,
            "version": subscription.version,
            "created_at": subscription.created_at,
        },
    )


async def find(session: AsyncSession, subscription_id: UUID, *, lock: bool = False) -> Subscription | None:
    row = (await session.execute(_LOCK if lock else _FIND, {"id": subscription_id})).one_or_none()
    return None if row is None else _subscription(row)


async def page(session: AsyncSession, tenant_id: UUID | None, after: UUID, limit: int) -> list[Subscription]:
    """Subscriptions with ids after `after`, oldest first; of all tenants the session may see where none is given."""
    rows = await session.execute(_PAGE, {"tenant_id": tenant_id, "after": after, "limit": limit})
    return [_subscription(row) for row in rows]


async def hold_many(session: AsyncSession, keys: Sequence[tuple[UUID, UUID]]) -> dict[UUID, Subscription]:
    """The subscriptions of (tenant, id) pairs, by id; none of them changes until the caller commits."""
    rows = await session.execute(_HOLD, {"tenant_ids": [key[0] for key in keys], "ids": [key[1] for key in keys]})
    return {row.id: _subscription(row) for row in rows}


async def end(session: AsyncSession, subscription: Subscription, ends_at: datetime) -> None:
    await session.execute(_ENDS, {"tenant_id": subscription.tenant_id, "id": subscription.id, "ends_at": ends_at})


async def of_tenant(session: AsyncSession, tenant_id: UUID) -> list[Subscription]:
    """All of a tenant, the oldest first."""
    return [_subscription(row) for row in await session.execute(_OF_TENANT, {"tenant_id": tenant_id})]


async def bump_standing(session: AsyncSession, tenant_id: UUID) -> tuple[int, datetime | None]:
    """The next version of what `billing.state.v1` says about the tenant, and its `bill_from`; the row stays locked."""
    row = (await session.execute(_BUMP_STANDING, {"tenant_id": tenant_id})).one()
    return row.version, row.bill_from


async def billed_starts(
    session: AsyncSession, subscriptions: Sequence[Subscription], kind: str
) -> dict[UUID, frozenset[datetime]]:
    """By subscription, the starts of the periods that have been billed or skipped."""
    rows = await session.execute(
        _BILLED,
        {
            "tenant_ids": [subscription.tenant_id for subscription in subscriptions],
            "ids": [subscription.id for subscription in subscriptions],
            "kind": kind,
        },
    )
    return {row.subscription_id: frozenset(row.starts) for row in rows}

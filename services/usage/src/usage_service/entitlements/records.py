"""What is published of balances (`usage.balances.v1`), and kept of what was published last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry.events import OutboxEvent, append_outbox_many
from usage_service.domain.entitlements import Value
from usage_service.domain.instants import rfc3339
from usage_service.domain.quantities import number_text
from usage_service.entitlements.features import Access
from usage_service.entitlements.repository import Held, StoredQuota, named

TOPIC: Final = "usage.balances.v1"
BALANCE: Final = "usage.balance"

_KNOWN: Final = text(
    """
    SELECT tenant_id, feature, document, version FROM pool.entitlement_balance
     WHERE (tenant_id, feature) IN (SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[])))
    """
)
_STORE: Final = text(
    """
    INSERT INTO pool.entitlement_balance (tenant_id, feature, document, version, next_turn)
    SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]), CAST(:documents AS text[]),
                         CAST(:versions AS bigint[]), CAST(:turns AS timestamptz[]))
    ON CONFLICT (tenant_id, feature) DO UPDATE SET
           document = excluded.document, version = excluded.version, next_turn = excluded.next_turn
    """
)
_PUT_OFF: Final = text(
    """
    INSERT INTO pool.entitlement_balance (tenant_id, feature, document, version, next_turn)
    SELECT tenant_id, feature, '', 0, next_turn
      FROM unnest(CAST(:tenants AS uuid[]), CAST(:features AS text[]), CAST(:turns AS timestamptz[]))
           AS unknown (tenant_id, feature, next_turn)
    ON CONFLICT (tenant_id, feature) DO UPDATE SET next_turn = excluded.next_turn
    """
)


class BalanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `usage.balances.v1`. Amounts are texts; a feature that is not metered has none.

    `limit` is what the period gives, grants and rollover included; `balance` is what of it is left until `resets_at`.
    """

    tenant_id: str
    feature: str
    has_access: bool
    hard: bool = False
    balance: str | None = None
    usage: str | None = None
    overage: str | None = None
    limit: str | None = None
    period_start: str | None = None
    resets_at: str | None = None
    config: Any = None

    @classmethod
    def of_access(cls, tenant_id: UUID, access: Access) -> BalanceRecord:
        return cls(tenant_id=str(tenant_id), feature=access.feature, has_access=access.enabled, config=access.config)

    @classmethod
    def of_value(cls, tenant_id: UUID, stored: StoredQuota, value: Value, *, config: Any) -> BalanceRecord:
        return cls(
            tenant_id=str(tenant_id),
            feature=stored.feature,
            has_access=value.has_access,
            hard=stored.quota.hard,
            balance=number_text(value.balance),
            usage=number_text(value.usage),
            overage=number_text(value.overage),
            limit=number_text(value.available),
            period_start=rfc3339(value.period.start),
            resets_at=rfc3339(value.period.end),
            config=config,
        )


@dataclass(frozen=True, slots=True)
class Worked:
    """What was worked out of one feature of a tenant; `record` None where the tenant has nothing of it any more."""

    record: BalanceRecord | None = None
    turn: datetime | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What was worked out last, as it is stored. Nothing is a document too, `""`."""

    document: str
    version: int

    @property
    def period_start(self) -> datetime | None:
        """Of the period that it was told of."""
        return _decode_period(self.document).period_start if self.document else None


class _Period(msgspec.Struct):
    period_start: datetime | None = None


_decode_period: Final = msgspec.json.Decoder(_Period).decode


async def find_told(session: AsyncSession, wanted: Collection[Held]) -> dict[Held, Told]:
    rows = await session.execute(_KNOWN, named(wanted))
    return {(row.tenant_id, row.feature): Told(row.document, row.version) for row in rows}


async def store_worked(
    session: AsyncSession, worked: Mapping[Held, Worked], told: Mapping[Held, Told]
) -> list[OutboxEvent]:
    """Stores what was worked out; returns the messages of what of it is new."""
    documents, versions, events = [], [], []
    for held, each in worked.items():
        # The version goes on where a quota comes back.
        before = told.get(held, _NEVER)
        document = "" if each.record is None else msgspec.json.encode(each.record).decode()
        version = before.version
        if document != before.document:
            version += 1
            events.append(_event(*held, each.record, version))
        documents.append(document)
        versions.append(version)
    turns = [each.turn for each in worked.values()]
    await session.execute(_STORE, {**named(worked), "documents": documents, "versions": versions, "turns": turns})
    return events


async def put_off(session: AsyncSession, turns: Mapping[Held, datetime]) -> None:
    """Leaves balances as they are until they are worked out again, which any usage brings about earlier."""
    if turns:
        await session.execute(_PUT_OFF, {**named(turns), "turns": list(turns.values())})


async def withdraw_balances(connection: AsyncConnection, balances: Sequence[Row[Any]]) -> None:
    """Have balances that are deleted in this transaction withdrawn from the topic."""
    await append_outbox_many(
        connection, [_event(each.tenant_id, each.feature, None, each.version + 1) for each in balances]
    )


_NEVER: Final = Told("", 0)


def _event(tenant_id: UUID, feature: str, record: BalanceRecord | None, version: int) -> OutboxEvent:
    return OutboxEvent(
        topic=TOPIC,
        key=f"{tenant_id}/{feature}",
        type=BALANCE,
        data=record,
        version=version,
        tenant_id=tenant_id,
    )

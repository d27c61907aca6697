"""The audit trail: a row for each thing that was done to a tenant or the platform, written with the thing itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.models import AuditChainRow, AuditEntryRow
from tenantry import uuid7

PLATFORM_CHAIN = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: what the audit row says of them."""

    subject: str
    kind: str
    credential_id: str
    request_id: str | None = None


WORKER = Actor(subject="tenant-worker", kind="service", credential_id="")


async def record(
    session: AsyncSession,
    actor: Actor,
    action: str,
    *,
    target: str,
    now: datetime,
    chain_id: UUID = PLATFORM_CHAIN,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append an entry to a tenant's chain (or the platform's) in the caller's transaction: one statement.

    The chain's row is locked until the caller commits, so positions have no gaps and no two entries share one.
    `detail` holds what changed and why, and never a secret.
    """
    chain = (
        upsert(AuditChainRow)
        .values(chain_id=chain_id, length=1)
        .on_conflict_do_update(index_elements=[AuditChainRow.chain_id], set_={"length": AuditChainRow.length + 1})
        .returning(AuditChainRow.chain_id, AuditChainRow.length)
        .cte("chain")
    )
    entry: dict[str, Any] = {
        "id": uuid7(),
        "occurred_at": now,
        "actor": actor.subject,
        "actor_kind": actor.kind,
        "credential_id": actor.credential_id,
        "action": action,
        "target": target,
        "detail": dict(detail or {}),
        "request_id": actor.request_id,
    }
    columns = [AuditEntryRow.__table__.c[name] for name in entry]
    values = select(chain.c.chain_id, chain.c.length, *(literal(entry[c.name], c.type) for c in columns))
    await session.execute(insert(AuditEntryRow).from_select(["chain_id", "position", *entry], values))

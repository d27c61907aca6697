"""SQL of reconciliations, of their pages and of the reports that come in."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenant_service.domain.saga import AckOutcome
from tenant_service.models import TenantRow
from tenant_service.reconciling.models import PageRow, Phase, ReconciliationRow
from tenant_service.runs.requests import Ack
from tenantry import NotFound, uuid7

_STORE_REPORTS = text(
    """
    UPDATE system.reconciliation_page AS page
    SET report = CAST(given.result AS jsonb), error = given.error, answered_at = :now
    FROM unnest(CAST(:request_ids AS uuid[]), CAST(:services AS text[]), CAST(:results AS text[]),
                CAST(:errors AS text[]))
        AS given (request_id, service, result, error)
    WHERE page.request_id = given.request_id AND page.service = given.service
      AND page.asked_at IS NOT NULL AND page.answered_at IS NULL
    """
)


async def add_reconciliation(
    session: AsyncSession, *, tenant_id: UUID | None, repair: bool, requested_by: str, now: datetime
) -> ReconciliationRow:
    row = ReconciliationRow(
        id=uuid7(),
        tenant_id=tenant_id,
        repair=repair,
        state=Phase.COMPARING,
        requested_by=requested_by,
        reached=None,
        pages=0,
        all_pages=False,
        opened=0,
        repaired=0,
        closed=0,
        created_at=now,
        ended_at=None,
    )
    session.add(row)
    await session.flush()
    return row


async def open_reconciliations(session: AsyncSession) -> Sequence[ReconciliationRow]:
    """Those that have not ended, the oldest first."""
    wanted = select(ReconciliationRow).where(ReconciliationRow.state != Phase.ENDED)
    return (await session.scalars(wanted.order_by(ReconciliationRow.created_at))).all()


async def find_reconciliation(session: AsyncSession, reconciliation_id: UUID) -> ReconciliationRow:
    """Raises `NotFound`."""
    row = await session.get(ReconciliationRow, reconciliation_id)
    if row is None:
        raise NotFound
    return row


async def lock_reconciliation(session: AsyncSession, reconciliation_id: UUID) -> ReconciliationRow | None:
    """One that has not ended, locked; None where another worker is at it."""
    wanted = select(ReconciliationRow).where(
        ReconciliationRow.id == reconciliation_id, ReconciliationRow.state != Phase.ENDED
    )
    return (await session.execute(wanted.with_for_update(skip_locked=True))).scalar_one_or_none()


async def last_of_all(session: AsyncSession, requested_by: str) -> ReconciliationRow | None:
    """The newest reconciliation of all tenants that was asked for by this one."""
    wanted = select(ReconciliationRow).where(
        ReconciliationRow.tenant_id.is_(None), ReconciliationRow.requested_by == requested_by
    )
    return (await session.scalars(wanted.order_by(ReconciliationRow.id.desc()).limit(1))).first()


async def only_one(session: AsyncSession) -> bool:
    """Whether this transaction is the one that may begin a reconciliation now; others are told False until it ends."""
    lock = text("SELECT pg_try_advisory_xact_lock(hashtextextended('tenant.reconciliation', 0))")
    return bool(await session.scalar(lock))


async def give_up_begun_before(session: AsyncSession, instant: datetime, now: datetime) -> Sequence[UUID]:
    """End the reconciliations that began before an instant and have not come to their end; their ids."""
    old = (ReconciliationRow.state != Phase.ENDED, ReconciliationRow.created_at < instant)
    wanted = select(ReconciliationRow).where(*old).with_for_update(skip_locked=True)
    rows = (await session.scalars(wanted)).all()
    ids = [row.id for row in rows]
    await session.execute(delete(PageRow).where(PageRow.reconciliation_id.in_(ids)))
    for row in rows:
        row.state, row.ended_at = Phase.ENDED, now
    await session.flush()
    return ids


async def forget_before(session: AsyncSession, instant: datetime) -> None:
    """Delete the reconciliations that ended before an instant."""
    await session.execute(delete(ReconciliationRow).where(ReconciliationRow.ended_at < instant))


async def add_pages(
    session: AsyncSession,
    reconciliation: ReconciliationRow,
    services: Collection[str],
    now: datetime,
    *,
    size: int,
) -> list[PageRow]:
    """The next page of the registry, of `size` tenants, for each of the services; the last one has no end."""
    if reconciliation.tenant_id is not None:
        after: UUID | None = UUID(int=reconciliation.tenant_id.int - 1)
        until: UUID | None = reconciliation.tenant_id
    else:
        after = reconciliation.reached
        wanted = select(TenantRow.id).order_by(TenantRow.id).limit(size)
        ids = (await session.scalars(wanted if after is None else wanted.where(TenantRow.id > after))).all()
        until = ids[-1] if len(ids) == size else None
    reconciliation.pages += 1
    reconciliation.reached = until
    reconciliation.all_pages = until is None or reconciliation.tenant_id is not None
    pages = [
        PageRow(
            reconciliation_id=reconciliation.id,
            position=reconciliation.pages,
            service=service,
            after_id=after,
            until_id=until,
            look=1,
            request_id=uuid7(),
            due_at=now,
            baseline={},
        )
        for service in services
    ]
    session.add_all(pages)
    await session.flush()
    return pages


async def pages_of(session: AsyncSession, reconciliation_id: UUID) -> Sequence[PageRow]:
    wanted = select(PageRow).where(PageRow.reconciliation_id == reconciliation_id)
    return (await session.scalars(wanted.order_by(PageRow.position, PageRow.service))).all()


async def store_reports(connection: AsyncConnection, acks: Sequence[Ack], now: datetime) -> None:
    """Write the answers that are reports to their pages: one statement, which changes nothing for any other answer.

    A late answer, to a look that was given up, and a second answer change nothing.
    """
    given = {
        "request_ids": [ack.request_id for ack in acks],
        "services": [ack.service for ack in acks],
        "results": [None if ack.result is None else msgspec.json.encode(ack.result).decode() for ack in acks],
        "errors": [None if ack.outcome is AckOutcome.DONE else f"{ack.error_code}: {ack.detail}" for ack in acks],
    }
    await connection.execute(_STORE_REPORTS, given | {"now": now})

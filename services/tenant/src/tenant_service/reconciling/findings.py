"""SQL of findings."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.findings import Finding, FindingCode, Repair, Severity
from tenant_service.reconciling.models import FindingRow
from tenantry import NotFound, uuid7

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Key = tuple[FindingCode, str, str]


@dataclass(frozen=True, slots=True)
class FindingFilter:
    """Which findings are wanted; what is None does not matter."""

    code: FindingCode | None = None
    severity: Severity | None = None
    service: str | None = None
    tenant_id: UUID | None = None
    is_open: bool | None = True

    def conditions(self) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        for column, value in (
            (FindingRow.code, self.code),
            (FindingRow.severity, self.severity),
            (FindingRow.service, self.service),
            (FindingRow.tenant_id, self.tenant_id),
        ):
            if value is not None:
                conditions.append(column == value)
        if self.is_open is not None:
            closed = FindingRow.closed_at.is_not(None)
            conditions.append(~closed if self.is_open else closed)
        return conditions


async def record(session: AsyncSession, findings: Sequence[Finding], now: datetime) -> tuple[list[FindingRow], int]:
    """Open what is new, and say of the others that they were seen again; the rows, and how many were opened."""
    if not findings:
        return [], 0
    by_key = {finding.key: finding for finding in findings}
    values = [
        {
            "id": uuid7(),
            "code": finding.code,
            "severity": finding.severity,
            "service": finding.service,
            "subject": finding.subject,
            "tenant_id": finding.tenant_id,
            "detail": finding.detail,
            "repair": finding.repair,
            "opened_at": now,
            "seen_at": now,
        }
        # In one order, so that two that record the same do not wait for each other crosswise.
        for _, finding in sorted(by_key.items())
    ]
    made = {each["id"] for each in values}
    statement = insert(FindingRow).values(values)
    statement = statement.on_conflict_do_update(
        index_elements=[FindingRow.code, FindingRow.service, FindingRow.subject],
        index_where=FindingRow.closed_at.is_(None),
        set_={"seen_at": now, "detail": statement.excluded.detail},
    )
    rows = list(
        (await session.scalars(statement.returning(FindingRow), execution_options={"populate_existing": True})).all()
    )
    opened = [row for row in rows if row.id in made]
    for row in opened:
        _log.warning(
            "finding_opened", code=row.code, service=row.service, severity=row.severity, tenant_id=_text(row.tenant_id)
        )
    return rows, len(opened)


async def close(session: AsyncSession, rows: Sequence[FindingRow], now: datetime) -> None:
    """Say of findings that they are over."""
    if not rows:
        return
    ended = update(FindingRow).where(FindingRow.id.in_([row.id for row in rows])).values(closed_at=now)
    await session.execute(ended, execution_options={"synchronize_session": False})
    for row in rows:
        _log.info(
            "finding_closed", code=row.code, service=row.service, severity=row.severity, tenant_id=_text(row.tenant_id)
        )


async def set_repaired(
    session: AsyncSession,
    rows: Sequence[FindingRow],
    *,
    reconciliation_id: UUID,
    now: datetime,
    runs: Mapping[UUID, UUID] | None = None,
) -> None:
    """Say of findings that something was done about them, by the run of its tenant where there is one."""
    for row in rows:
        row.repaired_at, row.repaired_in = now, reconciliation_id
        if runs is not None and row.tenant_id is not None:
            row.run_id = runs.get(row.tenant_id)
    await session.flush()


async def open_by(
    session: AsyncSession, codes: Collection[FindingCode], tenant_id: UUID | None = None
) -> Sequence[FindingRow]:
    """The open findings by some codes, of one tenant or of all and of none."""
    wanted: list[ColumnElement[bool]] = [FindingRow.closed_at.is_(None), FindingRow.code.in_(codes)]
    if tenant_id is not None:
        wanted.append(FindingRow.tenant_id == tenant_id)
    return (await session.scalars(select(FindingRow).where(*wanted))).all()


async def count_of(session: AsyncSession, code: FindingCode, service: str) -> int:
    """How many findings of a service are open by a code."""
    wanted = (FindingRow.closed_at.is_(None), FindingRow.code == code, FindingRow.service == service)
    return await session.scalar(select(func.count()).select_from(FindingRow).where(*wanted)) or 0


async def repaired_in(session: AsyncSession, reconciliation_id: UUID) -> bool:
    """Whether a reconciliation has done something about a finding that is still open."""
    wanted = (FindingRow.closed_at.is_(None), FindingRow.repaired_in == reconciliation_id)
    return await session.scalar(select(FindingRow.id).where(*wanted).limit(1)) is not None


async def open_seen_since(session: AsyncSession, code: FindingCode, instant: datetime) -> Sequence[FindingRow]:
    """The open findings by a code that were seen since an instant."""
    wanted = (FindingRow.closed_at.is_(None), FindingRow.code == code, FindingRow.seen_at >= instant)
    return (await session.scalars(select(FindingRow).where(*wanted))).all()


async def open_between(
    session: AsyncSession, service: str, after: UUID | None, until: UUID | None
) -> Sequence[FindingRow]:
    """The open findings of a service: those of its tenants in a page, and those of none."""
    of_page: list[ColumnElement[bool]] = []
    if after is not None:
        of_page.append(FindingRow.tenant_id > after)
    if until is not None:
        of_page.append(FindingRow.tenant_id <= until)
    wanted = select(FindingRow).where(FindingRow.closed_at.is_(None), FindingRow.service == service)
    for condition in of_page:
        wanted = wanted.where(FindingRow.tenant_id.is_(None) | condition)
    return (await session.scalars(wanted)).all()


async def tenants_with(session: AsyncSession, code: FindingCode, tenant_ids: Collection[UUID]) -> set[UUID]:
    """Those of the tenants that have an open finding by this code, of whatever service."""
    wanted = (FindingRow.closed_at.is_(None), FindingRow.code == code, FindingRow.tenant_id.in_(tenant_ids))
    found = await session.scalars(select(FindingRow.tenant_id).where(*wanted))
    return {each for each in found if each is not None}


async def republished_in(session: AsyncSession, reconciliation_id: UUID, tenant_ids: Collection[UUID]) -> set[UUID]:
    """Those of the tenants whose document was published again by this reconciliation."""
    wanted = (
        FindingRow.repaired_in == reconciliation_id,
        FindingRow.repair == Repair.REPUBLISH,
        FindingRow.tenant_id.in_(tenant_ids),
    )
    found = await session.scalars(select(FindingRow.tenant_id).where(*wanted))
    return {each for each in found if each is not None}


async def count_open(session: AsyncSession) -> Counter[tuple[str, str]]:
    """How many findings are open, by code and service."""
    statement = (
        select(FindingRow.code, FindingRow.service, func.count())
        .where(FindingRow.closed_at.is_(None))
        .group_by(FindingRow.code, FindingRow.service)
    )
    return Counter({(code, service): count for code, service, count in await session.execute(statement)})


async def list_findings(
    session: AsyncSession, wanted: FindingFilter, *, before: UUID | None, limit: int
) -> Sequence[FindingRow]:
    """At most `limit` findings, the newest first."""
    conditions = wanted.conditions()
    if before is not None:
        conditions.append(FindingRow.id < before)
    statement = select(FindingRow).where(*conditions).order_by(FindingRow.id.desc()).limit(limit)
    return (await session.scalars(statement)).all()


async def find_finding(session: AsyncSession, finding_id: UUID) -> FindingRow:
    """Raises `NotFound`."""
    row = await session.get(FindingRow, finding_id)
    if row is None:
        raise NotFound
    return row


async def forget_before(session: AsyncSession, instant: datetime) -> None:
    """Delete the findings that closed before an instant."""
    await session.execute(delete(FindingRow).where(FindingRow.closed_at < instant))


def key_of(row: FindingRow) -> Key:
    return FindingCode(row.code), row.service, row.subject


def _text(tenant_id: UUID | None) -> str | None:
    return None if tenant_id is None else str(tenant_id)

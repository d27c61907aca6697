"""The desired state: what the registry says of tenants, runs and stores."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.findings import Desired
from tenant_service.domain.saga import OPEN, AckOutcome, RunKind, RunState, StepName, StepState
from tenant_service.models import SagaRequestRow, SagaRunRow, SagaStepRow, TenantRow, TierRow
from tenant_service.reconciling.models import FindingRow
from tenant_service.stores.models import StoreRow
from tenant_service.tenants.document import document
from tenantry import TenantStatus, Tier
from tenantry.reconciling import PlaceCondition, observed

_WORKED_ON = (StepState.PENDING, StepState.WAITING)


async def desired_page(session: AsyncSession, after: UUID | None, until: UUID | None) -> Desired:
    """The tenants after `after` up to and with `until`, as every service should have them: three statements."""
    within: list[ColumnElement[bool]] = []
    if after is not None:
        within.append(TenantRow.id > after)
    if until is not None:
        within.append(TenantRow.id <= until)
    tiers = {row.name: row.version for row in await session.execute(select(TierRow.name, TierRow.version))}
    rows = (await session.scalars(select(TenantRow).where(*within).execution_options(populate_existing=True))).all()
    known = {row.id: row for row in rows if row.status is not TenantStatus.PURGED}
    documents = [document(row, None) for row in known.values()]
    return Desired(
        tenants={
            each.id: observed(each, Tier(name=each.tier, version=tiers[each.tier]), PlaceCondition.READY)
            for each in documents
        },
        gone={row.id for row in rows if row.id not in known},
        tiers={name: tiers[name] for name in {row.tier for row in known.values()}},
        in_transit=await tenants_in_transit(session, known),
    )


async def tenants_in_transit(session: AsyncSession, tenant_ids: Collection[UUID]) -> set[UUID]:
    """Those of the tenants with a run under way that changes them; waiting for the end of the grace changes nothing."""
    wanted = (
        select(SagaRunRow.subject_id)
        .join(SagaStepRow, and_(SagaStepRow.run_id == SagaRunRow.id, SagaStepRow.state.in_(_WORKED_ON)))
        .where(
            SagaRunRow.subject_id.in_(tenant_ids),
            SagaRunRow.state.in_((RunState.RUNNING, RunState.COMPENSATING)),
            SagaStepRow.name != StepName.AWAIT_GRACE,
        )
    )
    return set(await session.scalars(wanted))


async def tenants_under_repair(session: AsyncSession, tenant_ids: Collection[UUID]) -> set[UUID]:
    """Those of the tenants with an open run that is a repair or changes them."""
    repairs = select(SagaRunRow.subject_id).where(
        SagaRunRow.subject_id.in_(tenant_ids), SagaRunRow.state.in_(OPEN), SagaRunRow.kind == RunKind.REPAIR
    )
    return set(await session.scalars(repairs)) | await tenants_in_transit(session, tenant_ids)


async def repairs_under_way(session: AsyncSession, reconciliation_id: UUID) -> bool:
    """Whether a run that a reconciliation has begun has not come to its end."""
    wanted = (
        select(FindingRow.id)
        .join(SagaRunRow, SagaRunRow.id == FindingRow.run_id)
        .where(FindingRow.repaired_in == reconciliation_id, SagaRunRow.state == RunState.RUNNING)
    )
    return await session.scalar(wanted.limit(1)) is not None


async def not_provisioned(session: AsyncSession, service: str, tenant_id: UUID | None, limit: int) -> Sequence[UUID]:
    """At most `limit` live tenants that this service has never said to be provisioned."""
    done = (
        select(SagaRequestRow.request_id)
        .join(SagaRunRow, SagaRunRow.id == SagaRequestRow.run_id)
        .where(
            SagaRunRow.subject_id == TenantRow.id,
            SagaRunRow.kind.in_((RunKind.PROVISION, RunKind.REPAIR)),
            SagaRequestRow.service == service,
            SagaRequestRow.outcome == AckOutcome.DONE,
        )
        .exists()
    )
    wanted = select(TenantRow.id).where(TenantRow.status.in_((TenantStatus.ACTIVE, TenantStatus.SUSPENDED)), ~done)
    if tenant_id is not None:
        wanted = wanted.where(TenantRow.id == tenant_id)
    return (await session.scalars(wanted.order_by(TenantRow.id).limit(limit))).all()


@dataclass(frozen=True, slots=True)
class StuckRun:
    id: UUID
    kind: RunKind
    tenant_id: UUID | None
    step: StepName
    error: str | None


async def stuck_runs(
    session: AsyncSession, tenant_id: UUID | None, *, overdue_since: datetime, limit: int
) -> Sequence[StuckRun]:
    """Runs that wait for an operator, and those with a step that nobody has carried on although it was due long ago."""
    due = func.coalesce(SagaStepRow.next_retry_at, SagaStepRow.started_at, SagaRunRow.created_at)
    wanted = (
        select(SagaRunRow.id, SagaRunRow.kind, SagaRunRow.tenant_id, SagaStepRow.name, SagaStepRow.error_code)
        .join(SagaStepRow, SagaStepRow.run_id == SagaRunRow.id)
        .where(
            or_(
                and_(SagaRunRow.state == RunState.NEEDS_OPERATOR, SagaStepRow.state == StepState.FAILED),
                and_(
                    SagaRunRow.state.in_((RunState.RUNNING, RunState.COMPENSATING)),
                    SagaStepRow.state.in_(_WORKED_ON),
                    due < overdue_since,
                ),
            )
        )
        .order_by(SagaRunRow.id)
        .limit(limit)
    )
    if tenant_id is not None:
        wanted = wanted.where(SagaRunRow.tenant_id == tenant_id)
    return [StuckRun(*row) for row in await session.execute(wanted)]


async def store_counts(session: AsyncSession) -> Mapping[str, tuple[int, int]]:
    """By store, how many tenants it says it has and how many are placed there."""
    placed = (
        select(TenantRow.store, func.count().label("tenants"))
        .where(TenantRow.store.is_not(None))
        .group_by(TenantRow.store)
        .subquery()
    )
    statement = select(StoreRow.name, StoreRow.tenants, func.coalesce(placed.c.tenants, 0)).outerjoin(
        placed, placed.c.store == StoreRow.name
    )
    return {name: (said, counted) for name, said, counted in await session.execute(statement)}

"""SQL of exports, purges and certificates."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.config.models import ConfigLayerRow
from tenant_service.domain.saga import OPEN, AckOutcome, RunKind, StepName
from tenant_service.models import ApiKeyRow, SagaRequestRow, SagaRunRow, SagaStepRow, SessionRow
from tenant_service.offboarding.models import PurgeCertificateRow
from tenant_service.support.models import SupportGrantRow
from tenantry import NotFound

_LONELY_PEOPLE = text(
    """
    DELETE FROM system.person AS person
    WHERE person.id = ANY (CAST(:ids AS uuid[]))
      AND NOT EXISTS (SELECT FROM system.member WHERE member.person_id = person.id)
    """
)


async def open_run(session: AsyncSession, tenant_id: UUID) -> SagaRunRow | None:
    """The tenant's offboarding that is not over; None where there is none."""
    wanted = select(SagaRunRow).where(
        SagaRunRow.subject_id == tenant_id, SagaRunRow.kind == RunKind.OFFBOARD, SagaRunRow.state.in_(OPEN)
    )
    return (await session.scalars(wanted.order_by(SagaRunRow.id.desc()).limit(1))).one_or_none()


async def hurry(session: AsyncSession, run_id: UUID) -> None:
    """Look at the steps of the run that wait at once."""
    await session.execute(
        update(SagaStepRow)
        .where(SagaStepRow.run_id == run_id, SagaStepRow.next_retry_at.is_not(None))
        .values(next_retry_at=None)
    )


async def results_of(session: AsyncSession, run_id: UUID, step: StepName) -> Mapping[str, Mapping[str, Any]]:
    """What each service answered to a step of the run."""
    wanted = (
        select(SagaRequestRow.service, SagaRequestRow.result)
        .join(
            SagaStepRow,
            (SagaStepRow.run_id == SagaRequestRow.run_id) & (SagaStepRow.position == SagaRequestRow.position),
        )
        .where(SagaRequestRow.run_id == run_id, SagaStepRow.name == step, SagaRequestRow.outcome == AckOutcome.DONE)
        .order_by(SagaRequestRow.attempt)
    )
    return {row.service: row.result or {} for row in await session.execute(wanted)}


async def find_certificate(session: AsyncSession, tenant_id: UUID) -> PurgeCertificateRow:
    """Raises `NotFound`."""
    row = await session.get(PurgeCertificateRow, tenant_id)
    if row is None:
        raise NotFound
    return row


async def list_exports(
    session: AsyncSession, tenant_id: UUID, *, before: UUID | None, limit: int
) -> Sequence[tuple[SagaRunRow, Mapping[str, Mapping[str, Any]]]]:
    """Runs that export, the newest first, with what each service has answered."""
    wanted = select(SagaRunRow).where(
        SagaRunRow.subject_id == tenant_id, SagaRunRow.kind.in_([RunKind.EXPORT, RunKind.OFFBOARD])
    )
    if before is not None:
        wanted = wanted.where(SagaRunRow.id < before)
    runs = (await session.scalars(wanted.order_by(SagaRunRow.id.desc()).limit(limit))).all()
    return [(run, await results_of(session, run.id, StepName.EXPORT_DATA)) for run in runs]


async def find_export(
    session: AsyncSession, tenant_id: UUID, run_id: UUID
) -> tuple[SagaRunRow, Mapping[str, Mapping[str, Any]]]:
    """Raises `NotFound`."""
    run = await session.get(SagaRunRow, run_id)
    if run is None or run.subject_id != tenant_id or run.kind not in {RunKind.EXPORT, RunKind.OFFBOARD}:
        raise NotFound
    return run, await results_of(session, run.id, StepName.EXPORT_DATA)


async def living_credentials(session: AsyncSession, tenant_id: UUID) -> Sequence[tuple[UUID, int]]:
    """Ids and versions of what the topic of credentials still holds of the tenant: keys, sessions, support grants."""
    keys = select(ApiKeyRow.id, ApiKeyRow.version).where(
        ApiKeyRow.tenant_id == tenant_id, ApiKeyRow.revoked_at.is_(None)
    )
    sessions = select(SessionRow.id, SessionRow.version).where(
        SessionRow.tenant_id == tenant_id, SessionRow.ended_at.is_(None)
    )
    grants = select(SupportGrantRow.id, SupportGrantRow.version).where(
        SupportGrantRow.tenant_id == tenant_id, SupportGrantRow.ended_at.is_(None)
    )
    return [(row.id, row.version) for row in await session.execute(keys.union_all(sessions, grants))]


async def config_layers(session: AsyncSession, tenant_id: UUID) -> Sequence[ConfigLayerRow]:
    """The tenant's own layers."""
    return (await session.scalars(select(ConfigLayerRow).where(ConfigLayerRow.tenant_id == tenant_id))).all()


async def forget_people(session: AsyncSession, ids: Sequence[UUID]) -> None:
    """Delete those of these people who are in no tenant any more."""
    await session.execute(_LONELY_PEOPLE, {"ids": list(ids)})

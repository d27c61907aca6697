"""SQL of exports, purges and certificates."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.config.models import ConfigLayerRow
from tenant_service.domain.saga import OPEN, AckOutcome, RunKind, RunState, StepName, StepState
from tenant_service.models import ApiKeyRow, SagaRequestRow, SagaRunRow, SagaStepRow, SessionRow
from tenant_service.offboarding.models import PurgeCertificateRow
from tenant_service.support.models import SupportGrantRow
from tenantry import NotFound

# A step in any other state may still write files, or be tried again.
_OVER = frozenset({StepState.SUCCEEDED, StepState.CANCELLED})

_LONELY_PEOPLE = text(
    """
    DELETE FROM system.person AS person
    WHERE person.id = ANY (CAST(:ids AS uuid[]))
      AND NOT EXISTS (SELECT FROM system.member WHERE member.person_id = person.id)
    """
)


async def open_run(session: AsyncSession, tenant_id: UUID, kind: RunKind = RunKind.OFFBOARD) -> SagaRunRow | None:
    """The tenant's run of this kind that is not over; None where there is none."""
    wanted = select(SagaRunRow).where(
        SagaRunRow.subject_id == tenant_id, SagaRunRow.kind == kind, SagaRunRow.state.in_(OPEN)
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


@dataclass(frozen=True, slots=True)
class Export:
    """A run that exports, the step of it that does, and what each service has answered to that."""

    run: SagaRunRow
    step: SagaStepRow
    results: Mapping[str, Mapping[str, Any]]

    @property
    def state(self) -> RunState:
        """Of the export alone: an offboarding goes on when its export is done."""
        return RunState.SUCCEEDED if self.step.state is StepState.SUCCEEDED else self.run.state

    @property
    def ended_at(self) -> datetime | None:
        """When the last file was written, or the export given up; None while it may go on."""
        return self.step.ended_at if self.step.state in _OVER else None

    def expires_at(self, kept: timedelta) -> datetime | None:
        """From when on the files cannot be had; None while the export may go on."""
        return None if self.ended_at is None else self.ended_at + kept


async def purged_since(session: AsyncSession, since: datetime) -> Sequence[UUID]:
    """The tenants whose purge was certified from `since` on."""
    wanted = select(PurgeCertificateRow.tenant_id).where(PurgeCertificateRow.created_at >= since)
    return (await session.scalars(wanted.order_by(PurgeCertificateRow.tenant_id))).all()


async def open_purges(session: AsyncSession, tenant_ids: Collection[UUID]) -> Mapping[UUID, SagaRunRow]:
    """The runs of these purged tenants that delete once more and are not over, by tenant."""
    wanted = select(SagaRunRow).where(
        SagaRunRow.subject_id.in_(tenant_ids), SagaRunRow.kind == RunKind.PURGE, SagaRunRow.state.in_(OPEN)
    )
    return {run.subject_id: run for run in await session.scalars(wanted)}


async def list_exports(session: AsyncSession, tenant_id: UUID, *, before: UUID | None, limit: int) -> Sequence[Export]:
    """The tenant's exports, the newest first: one statement, however many they are."""
    wanted = _exports(tenant_id)
    if before is not None:
        wanted = wanted.where(SagaRunRow.id < before)
    return await _with_results(session, wanted.order_by(SagaRunRow.id.desc()).limit(limit))


async def find_export(session: AsyncSession, tenant_id: UUID, run_id: UUID) -> Export:
    """Raises `NotFound`."""
    found = await _with_results(session, _exports(tenant_id).where(SagaRunRow.id == run_id))
    if not found:
        raise NotFound
    return found[0]


async def export_ends(session: AsyncSession, keys: Collection[UUID]) -> Mapping[UUID, datetime | None]:
    """When the exports with these idempotency keys came to their end; None: they have not, or may be tried again."""
    wanted = select(SagaStepRow.idempotency_key, SagaStepRow.state, SagaStepRow.ended_at).where(
        SagaStepRow.name == StepName.EXPORT_DATA, SagaStepRow.idempotency_key.in_(keys)
    )
    return {key: ended_at if state in _OVER else None for key, state, ended_at in await session.execute(wanted)}


async def exports_since(session: AsyncSession, tenant_id: UUID, since: datetime) -> Mapping[UUID, datetime]:
    """The tenant's exports that came to their end after `since`, the oldest first, and when that was."""
    wanted = (
        select(SagaStepRow.run_id, SagaStepRow.ended_at)
        .where(
            SagaStepRow.run_id.in_(_exports(tenant_id)),
            SagaStepRow.name == StepName.EXPORT_DATA,
            SagaStepRow.state.in_(_OVER),
            SagaStepRow.ended_at > since,
        )
        .order_by(SagaStepRow.ended_at)
    )
    return {run_id: ended_at for run_id, ended_at in await session.execute(wanted) if ended_at is not None}


def _exports(tenant_id: UUID) -> Select[UUID]:
    return select(SagaRunRow.id).where(
        SagaRunRow.subject_id == tenant_id,
        SagaRunRow.kind.in_([RunKind.EXPORT, RunKind.OFFBOARD]),
        SagaRunRow.data["export"].as_boolean(),
    )


async def _with_results(session: AsyncSession, ids: Select[UUID]) -> Sequence[Export]:
    wanted = (
        select(SagaRunRow, SagaStepRow, SagaRequestRow.service, SagaRequestRow.result)
        .join(SagaStepRow, (SagaStepRow.run_id == SagaRunRow.id) & (SagaStepRow.name == StepName.EXPORT_DATA))
        .outerjoin(
            SagaRequestRow,
            (SagaRequestRow.run_id == SagaStepRow.run_id)
            & (SagaRequestRow.position == SagaStepRow.position)
            & (SagaRequestRow.outcome == AckOutcome.DONE),
        )
        .where(SagaRunRow.id.in_(ids))
        .order_by(SagaRunRow.id.desc(), SagaRequestRow.attempt)
    )
    found: dict[UUID, Export] = {}
    answers: dict[UUID, dict[str, Mapping[str, Any]]] = {}
    for run, step, service, result in await session.execute(wanted):
        given = answers.setdefault(run.id, {})
        found.setdefault(run.id, Export(run, step, given))
        if service is not None:
            given[service] = result or {}
    return list(found.values())


async def living_credentials(session: AsyncSession, tenant_id: UUID) -> Sequence[tuple[UUID, int]]:
    """Ids and versions of what the topic of credentials still holds of the tenant: keys, sessions, support grants."""
    keys = select(ApiKeyRow.id, ApiKeyRow.version).where(
        ApiKeyRow.tenant_id == tenant_id, ApiKeyRow.withdrawn_at.is_(None)
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

"""The work of each step, done in the transaction that holds the step's row."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import WORKER
from tenant_service.domain.lifecycle import Command
from tenant_service.domain.saga import FanIn, RetryPolicy, RunKind, StepName, fan_in
from tenant_service.models import SagaRunRow, SagaStepRow
from tenant_service.publication import TENANT_REQUESTS
from tenant_service.runs import repository
from tenant_service.tenants.repository import lock_tenant
from tenant_service.tenants.service import command_tenant, place_tenant
from tenantry import uuid7
from tenantry.events import append_outbox


@dataclass(frozen=True, slots=True)
class SagaSettings:
    """What the steps need to know of the deployment."""

    store: str
    services: Mapping[RunKind, tuple[str, ...]]
    retry: RetryPolicy


@dataclass(frozen=True, slots=True)
class Finished:
    """The step is done."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The step waits for services until `until`; an answer wakes it before that."""

    until: datetime


StepOutcome = Finished | Waiting
StepWork = Callable[[AsyncSession, SagaRunRow, SagaStepRow, SagaSettings, datetime], Awaitable[StepOutcome]]


class NoAnswer(Exception):
    """Services did not answer in time; the message names them."""


class ServiceRefused(Exception):
    """A service answered that it cannot do its part; `args` are its code and its words."""


async def place(
    session: AsyncSession, run: SagaRunRow, _step: SagaStepRow, settings: SagaSettings, now: datetime
) -> StepOutcome:
    """Say where the tenant's data will live; the tenant is `provisioning` from here on."""
    row, clock = await lock_tenant(session, run.subject_id)
    await place_tenant(session, row, clock, store=settings.store, actor=WORKER, now=now)
    return Finished()


async def request_services(
    session: AsyncSession, run: SagaRunRow, step: SagaStepRow, settings: SagaSettings, now: datetime
) -> StepOutcome:
    """Ask every required service that has not yet done its part, then add up the answers each time one comes in.

    Raises `ServiceRefused` and `NoAnswer`.
    """
    required = settings.services[run.kind]
    answers = await repository.answers_to(session, step)
    asked = any(answer.attempt == step.attempt for answer in answers)
    result = fan_in(required, answers, step.attempt)
    if result.complete:
        return Finished()
    if not asked:
        await _ask(session, run, step, result, now)
        return Waiting(until=now + settings.retry.answer_within)
    if result.failure is not None:
        raise ServiceRefused(result.failure.code, result.failure.detail)
    deadline = (step.started_at or now) + settings.retry.answer_within
    if now >= deadline:
        raise NoAnswer(", ".join(sorted(result.missing)))
    return Waiting(until=deadline)


async def activate(
    session: AsyncSession, run: SagaRunRow, _step: SagaStepRow, _settings: SagaSettings, now: datetime
) -> StepOutcome:
    """Every service is ready: the tenant may be used."""
    row, clock = await lock_tenant(session, run.subject_id)
    await command_tenant(session, row, clock, Command.ACTIVATE, actor=WORKER, now=now, note=f"run {run.id}")
    return Finished()


STEPS: Mapping[StepName, StepWork] = MappingProxyType(
    {StepName.PLACE: place, StepName.REQUEST_SERVICES: request_services, StepName.ACTIVATE: activate}
)

_REQUEST_KIND: Mapping[RunKind, str] = MappingProxyType(
    {RunKind.PROVISION: "tenant.provision", RunKind.CLOCK_ADVANCE: "clock.advance"}
)


async def _ask(session: AsyncSession, run: SagaRunRow, step: SagaStepRow, wanted: FanIn, now: datetime) -> None:
    services = sorted(wanted.missing)
    request_id = uuid7()
    await repository.add_requests(session, step, services, request_id, now)
    await append_outbox(
        session,
        topic=TENANT_REQUESTS,
        key=str(run.subject_id),
        type=f"{_REQUEST_KIND[run.kind]}_requested.v1",
        data={
            "request_id": str(request_id),
            "kind": _REQUEST_KIND[run.kind],
            "services": services,
            "tenant_id": None if run.tenant_id is None else str(run.tenant_id),
            "data": {"idempotency_key": str(step.idempotency_key), **await _request_data(session, run.tenant_id, run)},
        },
        tenant_id=run.tenant_id,
        version=step.attempt,
    )


async def _request_data(session: AsyncSession, tenant_id: UUID | None, run: SagaRunRow) -> dict[str, Any]:
    if tenant_id is None:
        return run.data
    row, _ = await lock_tenant(session, tenant_id)
    return {
        "slug": row.slug,
        "external_id": row.external_id,
        "tier": row.tier,
        "region": row.region,
        "placement": {"store": row.store, "isolation": row.isolation, "epoch": row.placement_epoch},
    }

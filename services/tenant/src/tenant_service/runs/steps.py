"""The work of each step, for many runs at once, done in the transaction that holds the steps' rows."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import WORKER
from tenant_service.domain.lifecycle import Command
from tenant_service.domain.placement import NoStore
from tenant_service.domain.saga import Answer, RetryPolicy, RunKind, StepFailure, StepName, fan_in
from tenant_service.models import SagaRunRow, SagaStepRow
from tenant_service.publication import TENANT_REQUESTS
from tenant_service.runs import requests
from tenant_service.runs.due_steps import Claimed
from tenant_service.runs.repository import TRACEPARENT
from tenant_service.runs.requests import NewRequest
from tenant_service.stores.service import occupy_stores
from tenant_service.tenants.repository import lock_tenants
from tenant_service.tenants.service import Locked, command_tenants, place_tenants, withdraw_places
from tenantry import uuid7
from tenantry.events import OutboxEvent, append_outbox_many


@dataclass(frozen=True, slots=True)
class SagaSettings:
    """What the steps need to know of the deployment.

    `services` must answer before a run goes on. `optional_services` are asked with them and not waited for. All of
    `offboarding_services` export and purge, each for as long as `offboarding_patience` before it is asked again.
    """

    services: Mapping[RunKind, tuple[str, ...]]
    retry: RetryPolicy
    optional_services: Mapping[RunKind, tuple[str, ...]] = field(default_factory=dict)
    offboarding_services: tuple[str, ...] = ()
    offboarding_patience: timedelta = timedelta(days=1)
    quarantine: timedelta = timedelta(days=90)
    exports_kept: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Finished:
    """The step is done."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The step waits until `until`; an answer of a service wakes it before that."""

    until: datetime


StepOutcome = Finished | Waiting
StepWork = Callable[
    [AsyncSession, Sequence[Claimed], SagaSettings, datetime], Awaitable[Sequence[StepOutcome | StepFailure]]
]
"""The work of a step for many runs: an outcome for each, in order. What it raises is undone, and the work is then given
the runs one by one, so that one that cannot succeed stops no other."""

OneWork = Callable[[AsyncSession, SagaRunRow, SagaStepRow, SagaSettings, datetime], Awaitable[StepOutcome]]


def each(work: OneWork) -> StepWork:
    """The work of a step that is done for one run at a time."""

    async def work_on_each(
        session: AsyncSession, claimed: Sequence[Claimed], settings: SagaSettings, now: datetime
    ) -> Sequence[StepOutcome]:
        return [await work(session, one.run, one.step, settings, now) for one in claimed]

    return work_on_each


async def place(
    session: AsyncSession, claimed: Sequence[Claimed], _settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome | StepFailure]:
    """Say where the tenants' data will live; they are `provisioning` from here on.

    A tenant that no store may take fails at once: what refuses it does not change by waiting.
    """
    tenants = await _tenants(session, claimed)
    homeless = [row for row, _ in tenants.values() if row.store is None]
    chosen = dict(zip([row.id for row in homeless], await occupy_stores(session, homeless), strict=True))
    refused = {tenant_id: error for tenant_id, error in chosen.items() if isinstance(error, NoStore)}
    stores = {tenant_id: store for tenant_id, store in chosen.items() if isinstance(store, str)}
    placed = [tenant for tenant_id, tenant in tenants.items() if tenant_id not in refused]
    await place_tenants(session, placed, stores=stores, actor=WORKER, now=now)
    failures = {tenant_id: StepFailure(error.type, str(error), permanent=True) for tenant_id, error in refused.items()}
    return [failures.get(one.run.subject_id) or Finished() for one in claimed]


async def request_services(
    session: AsyncSession, claimed: Sequence[Claimed], settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome | StepFailure]:
    """Ask every service that has not yet done its part, then add up the answers each time one comes in."""

    def services_of(one: Claimed) -> Services:
        kind = one.run.kind
        return Services(settings.services.get(kind, ()), settings.optional_services.get(kind, ()))

    return await ask_services(session, claimed, settings, now, services_of, lambda run: _REQUEST_KIND[run.kind])


async def activate(
    session: AsyncSession, claimed: Sequence[Claimed], _settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome]:
    """Every service is ready: the tenants may be used."""
    tenants = await _tenants(session, claimed)
    await command_tenants(session, list(tenants.values()), Command.ACTIVATE, actor=WORKER, now=now)
    return [Finished()] * len(claimed)


async def release_services(
    session: AsyncSession, claimed: Sequence[Claimed], settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome | StepFailure]:
    """Have every service that was asked for a place give it back, whatever it has answered: it may be at it now."""
    undone = {one.step.run_id: one.step.compensates or 0 for one in claimed}
    asked = await requests.asked_services(session, undone)

    def services_of(one: Claimed) -> Services:
        return Services(asked.get(one.run.id, ()), ())

    return await ask_services(session, claimed, settings, now, services_of, lambda _run: "tenant.release")


async def withdraw_place(
    session: AsyncSession, claimed: Sequence[Claimed], _settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome]:
    """The tenants live nowhere any more: their stores have room for others."""
    tenants = await _tenants(session, claimed)
    await withdraw_places(session, list(tenants.values()), actor=WORKER, now=now)
    return [Finished()] * len(claimed)


STEPS: Mapping[StepName, StepWork] = MappingProxyType(
    {
        StepName.PLACE: place,
        StepName.REQUEST_SERVICES: request_services,
        StepName.ACTIVATE: activate,
        StepName.RELEASE_SERVICES: release_services,
        StepName.WITHDRAW_PLACE: withdraw_place,
    }
)

_REQUEST_KIND: Mapping[RunKind, str] = MappingProxyType(
    {
        RunKind.PROVISION: "tenant.provision",
        RunKind.CLOCK_ADVANCE: "clock.advance",
        RunKind.CONFIRM_STATE: "tenant.state_applied",
    }
)


@dataclass(frozen=True, slots=True)
class Services:
    """Who is asked: the required ones are waited for, the optional ones are not."""

    required: Sequence[str]
    optional: Sequence[str]


async def ask_services(
    session: AsyncSession,
    claimed: Sequence[Claimed],
    settings: SagaSettings,
    now: datetime,
    services_of: Callable[[Claimed], Services],
    kind_of: Callable[[SagaRunRow], str],
    *,
    about: Callable[[Locked], Mapping[str, Any]] | None = None,
    answer_within: timedelta | None = None,
) -> Sequence[StepOutcome | StepFailure]:
    """The work of a step that asks services: a request for each run that has not asked in this attempt, then the sum.

    Four statements, however many the runs are. `about` is what a request says of its tenant besides its id, and
    `answer_within` is for what takes longer than the policy's time.
    """
    patience = answer_within or settings.retry.answer_within
    answers = await requests.answers_to(session, [one.step for one in claimed])
    to_ask: list[tuple[Claimed, Sequence[str]]] = []
    outcomes: list[StepOutcome | StepFailure] = []
    for one in claimed:
        services, given = services_of(one), answers[one.step.run_id, one.step.position]
        missing = fan_in({*services.required, *services.optional}, given, one.step.attempt).missing
        outcome = _sum(services, given, one.step, patience, now)
        outcomes.append(outcome)
        if missing and not isinstance(outcome, StepFailure) and not _asked(given, one.step):
            to_ask.append((one, sorted(missing)))
    await _ask(session, to_ask, kind_of, about or _about, now)
    return outcomes


def _asked(answers: Sequence[Answer], step: SagaStepRow) -> bool:
    return any(answer.attempt == step.attempt for answer in answers)


def _sum(
    services: Services, answers: Sequence[Answer], step: SagaStepRow, patience: timedelta, now: datetime
) -> StepOutcome | StepFailure:
    result = fan_in(services.required, answers, step.attempt)
    if result.complete:
        return Finished()
    if result.failure is not None:
        return result.failure
    deadline = (step.started_at or now) + patience
    if _asked(answers, step) and now >= deadline:
        return StepFailure("no-answer", f"no answer in time from {', '.join(sorted(result.missing))}")
    return Waiting(until=deadline)


async def _ask(
    session: AsyncSession,
    to_ask: Sequence[tuple[Claimed, Sequence[str]]],
    kind_of: Callable[[SagaRunRow], str],
    about: Callable[[Locked], Mapping[str, Any]],
    now: datetime,
) -> None:
    if not to_ask:
        return
    asked = {one.step.run_id: NewRequest(uuid7(), one.step, services) for one, services in to_ask}
    tenants = await _tenants(session, [one for one, _ in to_ask])
    numbers = await requests.add_requests(session, list(asked.values()), now)
    events = []
    for one, services in to_ask:
        run, step, request_id = one.run, one.step, asked[one.step.run_id].request_id
        kind = kind_of(run)
        data = {name: value for name, value in run.data.items() if name != TRACEPARENT}
        if run.tenant_id is not None:
            data |= about(tenants[run.tenant_id])
        value = {
            "request_id": str(request_id),
            "kind": kind,
            "services": services,
            "tenant_id": None if run.tenant_id is None else str(run.tenant_id),
            "data": {"idempotency_key": str(step.idempotency_key), **data},
        }
        events.append(
            OutboxEvent(
                topic=TENANT_REQUESTS,
                key=str(run.subject_id),
                type=f"{kind}_requested.v1",
                data=value,
                tenant_id=run.tenant_id,
                version=numbers[request_id],
                headers=_origin(run),
            )
        )
    await append_outbox_many(session, events)


def _origin(run: SagaRunRow) -> Mapping[str, str]:
    traceparent = run.data.get(TRACEPARENT)
    return {} if traceparent is None else {"traceparent": traceparent}


async def _tenants(session: AsyncSession, claimed: Sequence[Claimed]) -> Mapping[UUID, Locked]:
    """The tenants of the runs, locked. Raises `NotFound`."""
    return await lock_tenants(session, {one.run.tenant_id for one in claimed if one.run.tenant_id is not None})


def _about(tenant: Locked) -> Mapping[str, Any]:
    row, _ = tenant
    return {
        "slug": row.slug,
        "external_id": row.external_id,
        "tier": row.tier,
        "region": row.region,
        "placement": {"store": row.store, "isolation": row.isolation, "epoch": row.placement_epoch},
    }

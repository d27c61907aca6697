"""Durable sagas: which steps a run has, when a failed one is tried again, and what the answers of services add up to.

A run is a list of steps that are done one after the other. A step either does its work in the database at once or asks
product services (a request event) and waits until every required one has answered. The worker executes a step in the
transaction that holds its row, so a step that a killed process had begun has not happened; whoever claims it next
starts it again.

A run that is given up is undone: the steps that had begun are compensated, the last one first, by steps of the same
run.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base

from tenant_service.domain.lifecycle import Command


class RunKind(StrEnum):
    """What a run is for."""

    PROVISION = "provision"
    CLOCK_ADVANCE = "clock.advance"
    CONFIRM_STATE = "state.confirm"
    """Ask every service to say that it works by the tenant's new state, which is in force without that."""
    EXPORT = "export"
    OFFBOARD = "offboard"
    """From the order to stop to the certificate that nothing is left; it waits out the grace in between."""
    PURGE = "purge"
    """Delete once more what a purged tenant has: a backup that was restored brought it back."""
    REPAIR = "repair"
    """Have a service provision again a live tenant whose place there was found wanting."""


class RunState(StrEnum):
    """`needs_operator` waits for a retry or a cancel; `succeeded` and `cancelled` are final."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    SUCCEEDED = "succeeded"
    NEEDS_OPERATOR = "needs_operator"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """`pending` is due at a time, `waiting` waits for services, `queued` for the step before it."""

    QUEUED = "queued"
    PENDING = "pending"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepName(StrEnum):
    """The work of a step."""

    PLACE = "place"
    REQUEST_SERVICES = "request_services"
    ACTIVATE = "activate"
    RELEASE_SERVICES = "release_services"
    WITHDRAW_PLACE = "withdraw_place"
    EXPORT_DATA = "export_data"
    AWAIT_GRACE = "await_grace"
    BEGIN_PURGE = "begin_purge"
    PURGE_SERVICES = "purge_services"
    CERTIFY = "certify"
    RECORD_PURGE = "record_purge"
    PROVISION_AGAIN = "provision_again"


OPEN = frozenset({RunState.RUNNING, RunState.COMPENSATING, RunState.NEEDS_OPERATOR})

PLANS: Mapping[RunKind, tuple[StepName, ...]] = MappingProxyType(
    {
        RunKind.PROVISION: (StepName.PLACE, StepName.REQUEST_SERVICES, StepName.ACTIVATE),
        RunKind.CLOCK_ADVANCE: (StepName.REQUEST_SERVICES,),
        RunKind.CONFIRM_STATE: (StepName.REQUEST_SERVICES,),
        RunKind.EXPORT: (StepName.EXPORT_DATA,),
        RunKind.REPAIR: (StepName.PROVISION_AGAIN,),
        RunKind.PURGE: (StepName.PURGE_SERVICES, StepName.RECORD_PURGE),
        RunKind.OFFBOARD: (
            StepName.EXPORT_DATA,
            StepName.AWAIT_GRACE,
            StepName.BEGIN_PURGE,
            StepName.PURGE_SERVICES,
            StepName.CERTIFY,
        ),
    }
)

# What undoes a step. A step that is not here leaves nothing behind, or (a clock) nothing that can be taken back.
COMPENSATIONS: Mapping[tuple[RunKind, StepName], StepName] = MappingProxyType(
    {
        (RunKind.PROVISION, StepName.PLACE): StepName.WITHDRAW_PLACE,
        (RunKind.PROVISION, StepName.REQUEST_SERVICES): StepName.RELEASE_SERVICES,
    }
)

# Steps that only write to this database: begun in the transaction that ended the step before.
CHAINED = frozenset({StepName.REQUEST_SERVICES, StepName.ACTIVATE, StepName.WITHDRAW_PLACE})


@dataclass(frozen=True, slots=True)
class Consequences:
    """What becomes of the tenant when its run needs an operator, is tried again, or is given up; None: nothing."""

    failed: Command | None = None
    retried: Command | None = None
    cancelled: Command | None = None


CONSEQUENCES: Mapping[RunKind, Consequences] = MappingProxyType(
    {
        RunKind.PROVISION: Consequences(
            failed=Command.FAIL_PROVISIONING, retried=Command.PROVISION, cancelled=Command.CANCEL_PROVISIONING
        ),
        RunKind.CLOCK_ADVANCE: Consequences(),
        RunKind.CONFIRM_STATE: Consequences(),
        RunKind.EXPORT: Consequences(),
        RunKind.REPAIR: Consequences(),
        RunKind.PURGE: Consequences(),
        # Once data is being deleted the command is refused, and so is giving the run up.
        RunKind.OFFBOARD: Consequences(cancelled=Command.CANCEL_OFFBOARDING),
    }
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step has come."""

    position: int
    name: StepName
    state: StepState
    attempt: int


def compensations(kind: RunKind, steps: Iterable[Progress]) -> Sequence[tuple[StepName, int]]:
    """What undoes the steps that have begun, each with the position of the step that it undoes; the last one first."""
    begun = sorted((step for step in steps if step.attempt > 0), key=lambda step: step.position, reverse=True)
    return [(COMPENSATIONS[kind, step.name], step.position) for step in begun if (kind, step.name) in COMPENSATIONS]


@dataclass(frozen=True, slots=True)
class StepFailure:
    """Why an attempt did not succeed: a stable code for programs, a sentence for people (no values of rows)."""

    code: str
    detail: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a step is tried and how long it waits in between; `wait` is one of tenacity's strategies."""

    wait: wait_base
    attempts: int
    answer_within: timedelta

    def next_attempt(self, attempt: int, failure: StepFailure, now: datetime) -> datetime | None:
        """When to try again after attempt number `attempt` (from 1) failed; None: the budget is used up."""
        if failure.permanent or attempt >= self.attempts:
            return None
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = attempt
        return now + timedelta(seconds=self.wait(state))


# How many runs may wait for their services' first answers. Little's law: at the 100 runs a second that two cores carry,
# a run that begins when the window is full has its answer 0.3 s later. Fewer would leave the services without work.
RUNS_UNDER_WAY = 32

# One place in four is for the newest run.
NEWEST_SHARE = 4


def runs_to_begin(under_way: int, places: int) -> tuple[int, int]:
    """How many of the oldest and how many of the newest runs that have not begun may begin now.

    `under_way` runs wait for services, `places` steps are the most that may be taken. The oldest come first; a share is
    for the newest, so that somebody who has just signed up does not wait behind a thousand that were imported. Nothing
    begins before there is room for a whole share, or the newest would never get theirs.
    """
    room = RUNS_UNDER_WAY - under_way
    if room < NEWEST_SHARE:
        return 0, 0
    room = min(room, places)
    newest = room // NEWEST_SHARE
    return room - newest, newest


class AckOutcome(StrEnum):
    """What a service says about a request."""

    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """The state of one request to one service: no outcome yet, or what the service said."""

    service: str
    attempt: int
    outcome: AckOutcome | None = None
    error_code: str | None = None
    detail: str | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class FanIn:
    """What the answers add up to: the services still missing, and a failure where one of them failed."""

    missing: frozenset[str]
    failure: StepFailure | None = None

    @property
    def complete(self) -> bool:
        return not self.missing


def fan_in(required: Collection[str], answers: Iterable[Answer], attempt: int) -> FanIn:
    """Add up the answers to a step that is at attempt `attempt`.

    The work that is asked of services is idempotent and the same in every attempt, so "done" counts whichever attempt
    it answers (a late answer is an answer), while "failed" counts only for the present one: a late failure must not
    stop the attempt that an operator has just started. Services that are not required do not count.
    """
    missing = set(required)
    failed: list[Answer] = []
    for answer in answers:
        if answer.outcome is AckOutcome.DONE:
            missing.discard(answer.service)
        elif answer.outcome is AckOutcome.FAILED and answer.attempt == attempt:
            failed.append(answer)
    relevant = sorted((answer for answer in failed if answer.service in missing), key=lambda answer: answer.service)
    if not relevant:
        return FanIn(frozenset(missing))
    # One that will not do it, however often it is asked, decides.
    first = next((answer for answer in relevant if not answer.retryable), relevant[0])
    detail = "; ".join(f"{answer.service}: {answer.detail or answer.error_code or 'failed'}" for answer in relevant)
    return FanIn(
        frozenset(missing), StepFailure(first.error_code or "service-failed", detail, permanent=not first.retryable)
    )


class ServiceState(StrEnum):
    """Where a service is with what a step has asked of it; `degraded` is what an operator should look at."""

    DONE = "done"
    WAITING = "waiting"
    DEGRADED = "degraded"


def service_states(step: Progress, answers: Iterable[Answer]) -> Mapping[str, ServiceState]:
    """The state of each service that the step has asked.

    A service that has not done its part is degraded when it refused, when it was silent for a whole attempt, or when
    the run has gone on without it.
    """
    asked: dict[str, list[Answer]] = {}
    for answer in answers:
        asked.setdefault(answer.service, []).append(answer)
    waited_for = step.state in {StepState.PENDING, StepState.WAITING}
    states = {}
    for service, given in asked.items():
        if any(answer.outcome is AckOutcome.DONE for answer in given):
            states[service] = ServiceState.DONE
        elif waited_for and all(answer.outcome is None and answer.attempt == step.attempt for answer in given):
            states[service] = ServiceState.WAITING if step.state is StepState.WAITING else ServiceState.DEGRADED
        else:
            states[service] = ServiceState.DEGRADED
    return states

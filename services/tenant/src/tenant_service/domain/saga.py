"""Durable sagas: which steps a run has, when a failed one is tried again, and what the answers of services add up to.

A run is a list of steps that are done one after the other. A step either does its work in the database at once or asks
product services (a request event) and waits until every required one has answered. The worker executes a step in the
transaction that holds its row, so a step that a killed process had begun has not happened; whoever claims it next
starts it again.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base


class RunKind(StrEnum):
    """What a run is for."""

    PROVISION = "provision"
    CLOCK_ADVANCE = "clock.advance"


class RunState(StrEnum):
    """`needs_operator` waits for a retry or a cancel; the other two besides `running` are final."""

    RUNNING = "running"
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


PLANS: Mapping[RunKind, tuple[StepName, ...]] = MappingProxyType(
    {
        RunKind.PROVISION: (StepName.PLACE, StepName.REQUEST_SERVICES, StepName.ACTIVATE),
        RunKind.CLOCK_ADVANCE: (StepName.REQUEST_SERVICES,),
    }
)


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
    first = relevant[0]
    detail = "; ".join(f"{answer.service}: {answer.detail or answer.error_code or 'failed'}" for answer in relevant)
    return FanIn(frozenset(missing), StepFailure(first.error_code or "service-failed", detail, permanent=True))

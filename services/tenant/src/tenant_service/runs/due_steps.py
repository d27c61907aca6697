"""The queue of the saga workers: which steps are due, which of them a worker takes next, and how workers are woken.

Runs that have begun go before runs that have not, and only so many runs may wait for services at a time. So the queue
stands here, in the database, where it can be ordered, and not in the outbox and in Kafka, where whoever comes last has
to wait for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, func, inspect, literal_column, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenant_service.domain.saga import RunState, runs_to_begin
from tenant_service.models import SagaRunRow, SagaStepRow

WAKE_CHANNEL = "tenant_saga"

_WAKE = text("SELECT pg_notify(:channel, '')").bindparams(channel=WAKE_CHANNEL)

# The states of runs whose steps are carried forward.
_GOING = (RunState.RUNNING, RunState.COMPENSATING)

# How long a request that is not answered counts as being under way. A service that is slow or away must not keep the
# tenants of the others from being begun.
_UNDER_WAY = timedelta(seconds=1)

# These are the predicates of the partial indexes of the same names (migration 0013): literal, so that every plan can
# use them.
_DUE: ColumnElement[bool] = literal_column(
    "saga_step.state IN ('pending', 'waiting') AND (saga_step.position > 0 OR saga_step.attempt > 0)"
)
_BEGINNING: ColumnElement[bool] = literal_column(
    "saga_step.state = 'pending' AND saga_step.position = 0 AND saga_step.attempt = 0"
)
_WAITING: ColumnElement[bool] = literal_column("saga_step.state = 'waiting'")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A step that is due, and its run, both locked."""

    run: SagaRunRow
    step: SagaStepRow


async def wake_workers(session: AsyncSession | AsyncConnection) -> None:
    """Tell every worker, once this transaction commits, that a step is due."""
    await session.execute(_WAKE)


async def claim_due_steps(session: AsyncSession, now: datetime, limit: int) -> Sequence[Claimed]:
    """Lock at most `limit` steps that are due, with their runs. What another worker or an operator holds is skipped.

    Steps of runs that have begun come first, the longest due before the others; the places that are left go to runs
    that have not begun, as `runs_to_begin` says. Both rows are locked by one statement that never waits, so a worker
    cannot deadlock with `lock_run`.
    """
    is_time = SagaStepRow.next_retry_at.is_(None) | (SagaStepRow.next_retry_at <= now)
    longest_due = (SagaStepRow.next_retry_at.nulls_first(), SagaStepRow.run_id)
    claimed = await _claim(session, _steps(_DUE, is_time).order_by(*longest_due).limit(limit))
    if len(claimed) == limit:
        return claimed
    oldest, newest = runs_to_begin(await _under_way(session, now), limit - len(claimed))
    begun = await _claim(session, _steps(_BEGINNING).order_by(SagaStepRow.run_id).limit(oldest)) if oldest else []
    if newest and len(begun) == oldest:
        # Rows that this transaction has locked itself are not skipped.
        behind = SagaStepRow.run_id > begun[-1].run.id
        latest = _steps(_BEGINNING, behind).order_by(SagaStepRow.run_id.desc())
        begun += await _claim(session, latest.limit(newest))
    return claimed + begun


async def reload(session: AsyncSession, claimed: Sequence[Claimed]) -> None:
    """Read claimed rows again after a rollback to a savepoint has expired them: two statements."""
    keys = [inspect(one.step).identity for one in claimed]
    steps = select(SagaStepRow).where(tuple_(SagaStepRow.run_id, SagaStepRow.position).in_(keys))
    runs = select(SagaRunRow).where(SagaRunRow.id.in_([key[0] for key in keys if key is not None]))
    await session.execute(steps.execution_options(populate_existing=True))
    await session.execute(runs.execution_options(populate_existing=True))


def _steps(*wanted: ColumnElement[bool]) -> Select[SagaRunRow, SagaStepRow]:
    return (
        select(SagaRunRow, SagaStepRow)
        .join(SagaStepRow, SagaStepRow.run_id == SagaRunRow.id)
        .where(*wanted, SagaRunRow.state.in_(_GOING))
        .with_for_update(skip_locked=True)
    )


async def _claim(session: AsyncSession, steps: Select[SagaRunRow, SagaStepRow]) -> list[Claimed]:
    return [Claimed(run, step) for run, step in await session.execute(steps)]


async def _under_way(session: AsyncSession, now: datetime) -> int:
    """How many steps have asked services just now and have not been answered."""
    # An answer makes its step due at once.
    unanswered = (_WAITING, SagaStepRow.next_retry_at.is_not(None), SagaStepRow.started_at > now - _UNDER_WAY)
    return (await session.execute(select(func.count()).select_from(SagaStepRow).where(*unanswered))).scalar_one()

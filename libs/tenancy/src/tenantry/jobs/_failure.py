"""What is kept, and said, of an attempt that failed: enough to find the place, and no value of a row or an argument."""

import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from procrastinate.jobs import Job as QueuedJob

from tenantry._errors import RateLimited, TenantryError, Unavailable
from tenantry.jobs._errors import UnreadableJob
from tenantry.jobs._task import DEFAULT_RETRY, Task

WORKER_LOST: Final = "worker-lost"
_SERVER_ERROR: Final = 500
_FRAMES: Final = 5
_LONGEST: Final = 500


class Failure(NamedTuple):
    """The error as it is kept with the job."""

    type: str
    text: str


class WorkerLost(Exception):
    """Nobody has heard of the worker that ran the job."""


def describe(error: BaseException) -> Failure:
    """An expected error by its type and its text, which is made for others to read; any other by class and place.

    The text of the others may quote what they failed on.
    """
    if isinstance(error, WorkerLost):
        return Failure(WORKER_LOST, "The worker that ran it was lost.")
    if isinstance(error, Unavailable) or (isinstance(error, TenantryError) and error.status < _SERVER_ERROR):
        return Failure(error.type, error.detail.replace("\0", "")[:_LONGEST])
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return Failure("internal-error", f"{type(error).__qualname__} at {places}")


def next_attempt(task: Task[Any] | None, error: BaseException, attempts: int) -> datetime | None:
    """When to try again, None for not at all; `attempts` were made before this one.

    What is expected and lasting, such as `NotFound`, is not tried again; a job that this code cannot read is, because
    a newer version of it may be on its way to this worker.
    """
    lasting = isinstance(error, TenantryError) and error.status < _SERVER_ERROR
    if lasting and not isinstance(error, RateLimited | UnreadableJob):
        return None
    retry = DEFAULT_RETRY if task is None else task.retry
    if retry is None:
        return None
    # Without its arguments: a strategy has no use for them, and procrastinate writes jobs to its log.
    queued = QueuedJob(queue="", lock=None, queueing_lock=None, task_name="" if task is None else task.name)
    decision = retry.get_retry_decision(exception=error, job=queued.evolve(attempts=attempts))
    if decision is None:
        return None
    now = datetime.now(UTC)
    at = decision.retry_at or now
    if isinstance(error, RateLimited | Unavailable):
        at = max(at, now + timedelta(seconds=error.retry_after))
    return at

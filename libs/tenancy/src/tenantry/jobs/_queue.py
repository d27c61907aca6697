"""The queue of one database, as workers see it: the system role, and procrastinate's functions for the life of a job.

Fetching is ours: procrastinate takes the oldest job of all, we take the oldest of the tenant whose turn it is. What a
worker says of a job counts only as long as the job is its own: one that was taken for dead has no word any more.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.jobs._failure import Failure

Begin = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

# What is to be locked is chosen in a WITH: as a sub-select it may run once a row, and lock others each time.
_DUE: Final = text(
    """
    WITH due AS MATERIALIZED (
        SELECT id FROM jobs.procrastinate_jobs WHERE status = 'todo' AND scheduled_at <= now()
        ORDER BY scheduled_at LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs.procrastinate_jobs AS job SET scheduled_at = NULL FROM due WHERE job.id = due.id
    """
)
# A loose index scan: the next tenant is looked up behind the last one, so what it costs are tenants and not jobs.
_WAITING: Final = text(
    """
    WITH RECURSIVE waiting AS (
        (SELECT tenant_id FROM jobs.procrastinate_jobs WHERE status = 'todo' AND scheduled_at IS NULL
         ORDER BY tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT job.tenant_id FROM jobs.procrastinate_jobs AS job
                WHERE job.status = 'todo' AND job.scheduled_at IS NULL AND job.tenant_id > waiting.tenant_id
                ORDER BY job.tenant_id LIMIT 1)
        FROM waiting WHERE waiting.tenant_id IS NOT NULL
    )
    SELECT tenant_id FROM waiting WHERE tenant_id IS NOT NULL
    """
)
# BETWEEN, and the tenant in the order: with an equality the planner may find procrastinate's index on (priority, id) as
# good, or sort all jobs of the tenant; as it is, only our own index has the order, whatever the statistics say.
CLAIM: Final = text(
    """
    WITH next AS MATERIALIZED (
        SELECT id FROM jobs.procrastinate_jobs
        WHERE tenant_id BETWEEN :tenant_id AND :tenant_id AND status = 'todo' AND scheduled_at IS NULL
        ORDER BY tenant_id, priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs.procrastinate_jobs AS job SET status = 'doing', worker_id = :worker_id FROM next WHERE job.id = next.id
    RETURNING job.id, job.tenant_id, job.task_name, job.attempts, job.args, job.worker_id
    """
)
_HELD: Final = "WHERE id = :id AND worker_id = :worker_id AND status = 'doing'"
_SUCCEEDED: Final = text(
    f"""
    SELECT jobs.procrastinate_finish_job_v1(held.id, 'succeeded', true)
    FROM (SELECT id FROM jobs.procrastinate_jobs {_HELD} FOR UPDATE) AS held
    """  # noqa: S608 - a constant
)
_NOTE: Final = text(
    f"""
    UPDATE jobs.procrastinate_jobs SET error_type = :type, error_text = :text, failed_at = now() {_HELD} RETURNING id
    """  # noqa: S608
)
_FAILED: Final = text("SELECT jobs.procrastinate_finish_job_v1(:id, 'failed', false)")
_RETRY: Final = text("SELECT jobs.procrastinate_retry_job_v2(:id, CAST(:at AS timestamptz), NULL, NULL, NULL)")
_RELEASE: Final = text(
    f"""
    SELECT jobs.procrastinate_retry_job_v2(held.id, NULL, NULL, NULL, NULL)
    FROM (SELECT id FROM jobs.procrastinate_jobs {_HELD} FOR UPDATE) AS held
    """  # noqa: S608
)
_NOT_COUNTED: Final = text("UPDATE jobs.procrastinate_jobs SET attempts = attempts - 1 WHERE id = :id")
_DISCARD: Final = text(
    """
    WITH gone AS MATERIALIZED (
        SELECT id FROM jobs.procrastinate_jobs WHERE tenant_id = :tenant_id AND status = 'todo'
        LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM jobs.procrastinate_jobs AS job USING gone WHERE job.id = gone.id
    """
)
_REGISTER: Final = text("SELECT worker_id FROM jobs.procrastinate_register_worker_v1()")
_UNREGISTER: Final = text("SELECT jobs.procrastinate_unregister_worker_v1(:worker_id)")
_HEARTBEAT: Final = text(
    "SELECT jobs.procrastinate_update_heartbeat_v1(id) FROM jobs.procrastinate_workers WHERE id = :id"
)
_STRAY: Final = text(
    """
    SELECT id, tenant_id, task_name, attempts, args, worker_id FROM jobs.procrastinate_jobs
    WHERE status = 'doing' AND worker_id = :worker_id AND NOT id = ANY (CAST(:running AS bigint[]))
    """
)
_PRUNE: Final = text("SELECT worker_id FROM jobs.procrastinate_prune_stalled_workers_v1(:seconds)")
_LOST: Final = text(
    """
    SELECT id, tenant_id, task_name, attempts, args, worker_id FROM jobs.procrastinate_jobs
    WHERE status = 'doing' AND worker_id IS NULL ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED
    """
)
_NOTE_LOST: Final = text(
    "UPDATE jobs.procrastinate_jobs SET error_type = :type, error_text = :text, failed_at = now() WHERE id = :id"
)
_SWEEP: Final = text(
    """
    DELETE FROM jobs.procrastinate_jobs
    WHERE status IN ('failed', 'cancelled', 'aborted')
      AND COALESCE(failed_at, created_at) < now() - CAST(:age AS interval)
    """
)
_BACKLOG: Final = text(
    """
    SELECT tenant_id, count(*) AS jobs, extract(epoch FROM now() - min(created_at))::float8 AS oldest
    FROM jobs.procrastinate_jobs WHERE status = 'todo' AND scheduled_at IS NULL GROUP BY tenant_id
    """
)


class Claimed(NamedTuple):
    """A job that this worker runs now. `attempts` were made before."""

    id: int
    tenant_id: UUID
    task_name: str
    attempts: int
    args: dict[str, Any]
    worker_id: int


class Backlog(NamedTuple):
    """A tenant's jobs that could run now, and for how many seconds the oldest has waited."""

    tenant_id: UUID
    jobs: int
    oldest: float


class Queue:
    """The jobs in one database. Each call is a transaction of its own; it raises DBAPIError and OSError."""

    def __init__(self, name: str, begin: Begin, *, own: bool = False) -> None:
        """`begin` opens a transaction of the system role; `own` says that the database is one tenant's."""
        self.name = name
        self.own = own
        self._begin = begin

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"

    async def waiting(self) -> Sequence[UUID]:
        """The tenants with jobs that could run now."""
        async with self._begin() as connection:
            await connection.execute(_DUE)
            return (await connection.scalars(_WAITING)).all()

    async def claim(self, tenant_id: UUID, worker_id: int) -> Claimed | None:
        """The tenant's next job, from here on the worker's; None where none is left."""
        async with self._begin() as connection:
            row = (await connection.execute(CLAIM, {"tenant_id": tenant_id, "worker_id": worker_id})).one_or_none()
            return None if row is None else Claimed(*row)

    async def succeed(self, job: Claimed) -> bool:
        """Deletes a job that is done. False where it is the worker's no more, and somebody runs it again."""
        async with self._begin() as connection:
            return await _touched(connection, _SUCCEEDED, job)

    async def fail(self, job: Claimed, failure: Failure, again_at: datetime | None) -> bool:
        """Notes why an attempt failed, and when the job is to be tried again, None for never. False as above."""
        async with self._begin() as connection:
            if not await _touched(connection, _NOTE, job, type=failure.type, text=failure.text):
                return False
            await _put_back(connection, job.id, again_at)
            return True

    async def release(self, job: Claimed) -> bool:
        """Gives a job back as if it had not been run. False as above."""
        async with self._begin() as connection:
            if not await _touched(connection, _RELEASE, job):
                return False
            await connection.execute(_NOT_COUNTED, {"id": job.id})
            return True

    async def discard(self, tenant_id: UUID) -> int:
        """Deletes jobs of a tenant that is no more, a thousand at most; how many."""
        async with self._begin() as connection:
            return (await connection.execute(_DISCARD, {"tenant_id": tenant_id})).rowcount

    async def register(self) -> int:
        """The id of a new worker."""
        async with self._begin() as connection:
            worker_id: int = (await connection.execute(_REGISTER)).scalar_one()
            return worker_id

    async def unregister(self, worker_id: int) -> None:
        """The worker has ended; jobs that it still holds are lost."""
        async with self._begin() as connection:
            await connection.execute(_UNREGISTER, {"worker_id": worker_id})

    async def beat(self, worker_id: int) -> bool:
        """Says that the worker lives. False where it was taken for dead, and its jobs were given to others."""
        async with self._begin() as connection:
            return (await connection.execute(_HEARTBEAT, {"id": worker_id})).one_or_none() is not None

    async def strays(self, worker_id: int, running: Sequence[int]) -> list[Claimed]:
        """Jobs that the worker holds and does not run: it was never told that it got them."""
        async with self._begin() as connection:
            values = {"worker_id": worker_id, "running": list(running)}
            return [Claimed(*row) for row in await connection.execute(_STRAY, values)]

    async def rescue(self, silent: float, judge: Callable[[Claimed], tuple[Failure, datetime | None]]) -> list[Claimed]:
        """Takes jobs from workers that have been silent for so many seconds; `judge` says what becomes of each."""
        async with self._begin() as connection:
            await connection.execute(_PRUNE, {"seconds": silent})
            lost = [Claimed(*row) for row in await connection.execute(_LOST)]
            for job in lost:
                failure, again_at = judge(job)
                await connection.execute(_NOTE_LOST, {"id": job.id, "type": failure.type, "text": failure.text})
                await _put_back(connection, job.id, again_at)
            return lost

    async def sweep(self, age: timedelta) -> int:
        """Deletes jobs that failed for good, or were cancelled, longer ago; how many."""
        async with self._begin() as connection:
            return (await connection.execute(_SWEEP, {"age": age})).rowcount

    async def backlog(self) -> list[Backlog]:
        """What waits, by tenant. Counts every job."""
        async with self._begin() as connection:
            return [Backlog(*row) for row in await connection.execute(_BACKLOG)]


async def _put_back(connection: AsyncConnection, job_id: int, again_at: datetime | None) -> None:
    if again_at is None:
        await connection.execute(_FAILED, {"id": job_id})
    else:
        await connection.execute(_RETRY, {"id": job_id, "at": again_at})


async def _touched(connection: AsyncConnection, statement: TextClause, job: Claimed, **values: Any) -> bool:
    result = await connection.execute(statement, {"id": job.id, "worker_id": job.worker_id, **values})
    row: Row[Any] | None = result.one_or_none()
    return row is not None

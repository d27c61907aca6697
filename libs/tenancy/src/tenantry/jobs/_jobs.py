"""The tasks of a service, and how a job of one is queued: in the transaction of the tenant that wants it."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec

import msgspec
from procrastinate import BaseRetryStrategy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tenantry._context import current_request_id, current_traceparent
from tenantry._errors import NoTenant
from tenantry.database import ReadSession, SyncWriteSession, WriteSession
from tenantry.database._session import BoundSession
from tenantry.jobs._envelope import Envelope
from tenantry.jobs._errors import UnreadableJob
from tenantry.jobs._task import DEFAULT_RETRY, Job, Task

P = ParamSpec("P")

QUEUE: Final = "tenants"

_DEFER: Final = text(
    """
    SELECT (jobs.procrastinate_defer_jobs_v1(ARRAY[
        ROW(:queue, :task, CAST(:priority AS integer), NULL, NULL, CAST(:envelope AS jsonb), CAST(:at AS timestamptz))
        ::jobs.procrastinate_job_to_defer_v1
    ]))[1]
    """
)
_FIND: Final = text(
    """
    SELECT status::text, attempts, error_type, error_text FROM jobs.procrastinate_jobs
    WHERE id = :id AND tenant_id = :tenant_id
    """
)


class JobState(NamedTuple):
    """How a job stands: `todo`, `doing`, `failed` or `cancelled`, and why its last attempt failed."""

    status: str
    attempts: int
    error_type: str | None
    error_text: str | None


class Jobs:
    """The tasks of one service, declared like routes and run by a `JobWorker`."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any]] = {}

    def task(
        self,
        name: str,
        *,
        retry: BaseRetryStrategy | None = DEFAULT_RETRY,
        seconds: float | None = None,
        priority: int = 0,
    ) -> Callable[[Callable[Concatenate[Job, P], Awaitable[None]]], Task[P]]:
        """Declares a function as a task; its arguments after the job have names and types that JSON can carry.

        A job may run more than once: its worker may be killed after the work and before it has said so. `name` is what
        queued jobs are found by, and stays. `retry` is procrastinate's, None for a single attempt; `seconds` is how
        long an attempt may take. Of a tenant's jobs those of higher `priority` go first.
        """

        def declare(function: Callable[Concatenate[Job, P], Awaitable[None]]) -> Task[P]:
            if name in self._tasks:
                raise ValueError(f"there are two tasks {name}")
            task = self._tasks[name] = Task(name, function, retry=retry, seconds=seconds, priority=priority)
            return task

        return declare

    def find(self, name: str) -> Task[Any]:
        """The task of this name. Raises `UnreadableJob`."""
        task = self._tasks.get(name)
        if task is None:
            raise UnreadableJob("There is no such task.")
        return task

    async def defer(self, session: WriteSession, task: Task[P], /, *arguments: P.args, **named: P.kwargs) -> int:
        """Queues a job for the tenant of `session`, in its transaction: committed with its rows, or not at all.

        Returns the job's id. Raises `NoTenant` for a session of no tenant, TypeError for arguments that the task does
        not take, and `JobTooLarge`.
        """
        return await self.defer_at(session, None, task, *arguments, **named)

    async def defer_at(
        self, session: WriteSession, at: datetime | None, task: Task[P], /, *arguments: P.args, **named: P.kwargs
    ) -> int:
        """The same for a job that is not run before `at`."""
        values = _values(session, task, at, task.pack(*arguments, **named))
        job_id: int = (await session.execute(_DEFER, values)).scalar_one()
        return job_id

    def defer_sync(self, session: SyncWriteSession, task: Task[P], /, *arguments: P.args, **named: P.kwargs) -> int:
        """`defer` for code that is not async."""
        values = _values(session, task, None, task.pack(*arguments, **named))
        job_id: int = session.execute(_DEFER, values).scalar_one()
        return job_id

    async def state(self, session: ReadSession, job_id: int) -> JobState | None:
        """How a job of the session's tenant stands; None once it has succeeded, and for jobs of others."""
        values = {"id": job_id, "tenant_id": _bound(session).tenant_id}
        row = (await session.execute(_FIND, values)).one_or_none()
        return None if row is None else JobState(*row)


def _values(
    session: AsyncSession | Session, task: Task[Any], at: datetime | None, arguments: dict[str, Any]
) -> dict[str, Any]:
    envelope = Envelope(
        tenant_id=_bound(session).tenant_id,
        arguments=arguments,
        traceparent=current_traceparent(),
        request_id=current_request_id(),
    )
    return {
        "queue": QUEUE,
        "task": task.name,
        "priority": task.priority,
        "envelope": msgspec.json.encode(envelope).decode(),
        "at": at,
    }


def _bound(session: AsyncSession | Session) -> BoundSession:
    found = session.sync_session if isinstance(session, AsyncSession) else session
    if not isinstance(found, BoundSession):
        raise NoTenant("A job belongs to a tenant: it is queued in that tenant's session, and this one is nobody's.")
    return found

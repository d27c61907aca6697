"""Runs the jobs of a service: in turns between its tenants, each in the scope of its own tenant alone.

A job is run at least once. It is taken by one worker at a time, and given to another when its worker has not been heard
of for a while, so a worker that was only slow may have run it too: what a job does, it does so that it may be repeated.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

import msgspec
import structlog
from sqlalchemy.exc import DBAPIError

from tenantry._admission import admit, check_residency
from tenantry._backoff import Backoff
from tenantry._context import _request_id, _traceparent
from tenantry._errors import StartupRefused, TenantryError
from tenantry._spawn import spawn
from tenantry._tenant import Isolation, Operation, Tenant
from tenantry._tracing import span
from tenantry.jobs._envelope import Envelope
from tenantry.jobs._errors import UnreadableJob
from tenantry.jobs._failure import Failure, WorkerLost, describe, next_attempt
from tenantry.jobs._jobs import Jobs
from tenantry.jobs._metrics import JobMetrics
from tenantry.jobs._queue import Claimed, Queue
from tenantry.jobs._queues import Queues
from tenantry.jobs._settings import JobSettings
from tenantry.jobs._task import Job
from tenantry.jobs._turns import Turn, Turns
from tenantry.limits import Share

if TYPE_CHECKING:
    from tenantry._tenancy import Tenancy

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_MEASURE_SECONDS: Final = 15.0
_SWEEP_SECONDS: Final = 3600.0
# A tenant's own database that does not answer for so long is left for the next time.
_OWN_SECONDS: Final = 10.0
_AWAY: Final = (DBAPIError, OSError)


class JobWorker:
    """One process's share of the jobs of a service; any number may run. Belongs to one event loop."""

    def __init__(self, jobs: Jobs, tenancy: "Tenancy", settings: JobSettings | None = None) -> None:
        """`tenancy` is running, with the system role of the service's databases. Raises `StartupRefused`."""
        self._jobs = jobs
        self._tenancy = tenancy
        self._settings = settings or JobSettings.from_env()
        self._queues = Queues(tenancy.service, tenancy.databases)
        if not self._queues.shared:
            raise StartupRefused("jobs need the database URL of the system role")
        self._turns = Turns(
            self._settings.concurrency, reserve=min(self._settings.reserve, self._settings.concurrency - 1)
        )
        self._metrics = JobMetrics(tenancy.service, tenancy.settings.metrics_top_tenants)
        self._workers: dict[Queue, int] = {}
        self._registering = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[asyncio.Task[None], tuple[Queue, Claimed]] = {}
        self._unknown: set[UUID] = set()
        self._strays: dict[Queue, set[int]] = {}
        self._rescued: dict[Queue, float] = {}
        self._turn_due = asyncio.Event()
        self._look_due = {queue: asyncio.Event() for queue in self._queues.shared.values()}

    async def run(self) -> NoReturn:
        """Works until it is cancelled; then what runs may end, and what has not is given back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for store, queue in self._queues.shared.items():
                    tasks.create_task(self._watch(queue))
                    tasks.create_task(self._queues.listen(store, self._look_due[queue].set))
                tasks.create_task(self._watch_own_databases())
                tasks.create_task(self._give_turns())
                tasks.create_task(_every(self._settings.heartbeat_seconds, self._beat))
                tasks.create_task(_every(self._settings.heartbeat_seconds, self._rescue))
                tasks.create_task(_every(_MEASURE_SECONDS, self._measure))
                tasks.create_task(_every(_SWEEP_SECONDS, self._sweep))
        finally:
            await self._drain()
        raise AssertionError("its tasks end only by an error")

    # Looking for work.

    async def _watch(self, queue: Queue) -> None:
        due, backoff = self._look_due[queue], Backoff()
        while True:
            try:
                await self._look(queue)
                backoff.reset()
            except _AWAY as error:
                log.warning("jobs_wait", queue=queue.name, error=type(error).__name__)
                await backoff.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll_seconds):
                    await due.wait()
            due.clear()

    async def _watch_own_databases(self) -> None:
        while True:
            for tenant in self._with_databases():
                try:
                    async with asyncio.timeout(_OWN_SECONDS):
                        await self._look_at_own(tenant)
                except _AWAY as error:
                    log.warning("jobs_wait", tenant_id=str(tenant.id), error=type(error).__name__)
            await asyncio.sleep(self._settings.own_database_poll_seconds)

    async def _look_at_own(self, tenant: Tenant) -> None:
        queue = await self._queues.own(tenant)
        if queue is not None and _may_work(tenant, self._tenancy.settings.region):
            await self._rescue_from(queue)
            await self._look(queue)

    def _with_databases(self) -> list[Tenant]:
        return [
            tenant
            for tenant in self._tenancy.directory
            if tenant.placement is not None and tenant.placement.isolation is Isolation.DATABASE
        ]

    async def _look(self, queue: Queue) -> None:
        if not self._tenancy.directory.ready:
            return
        for tenant_id in await queue.waiting():
            await self._consider(tenant_id, queue)
        self._turn_due.set()

    async def _consider(self, tenant_id: UUID, queue: Queue) -> None:
        """Has a tenant with waiting jobs stand in line, where it may have any run now."""
        tenant = self._tenant(tenant_id)
        if tenant is not None:
            self._unknown.discard(tenant_id)
            if _may_work(tenant, self._tenancy.settings.region):
                self._turns.join(Turn(tenant_id, queue), self._share(tenant))
        elif self._tenancy.directory.is_purged(tenant_id):
            discarded = await queue.discard(tenant_id)
            log.warning("jobs_discarded", tenant_id=str(tenant_id), jobs=discarded)
        elif tenant_id not in self._unknown:
            # The directory may not have heard of it yet, or not list it for a while; what is deleted never comes back.
            self._unknown.add(tenant_id)
            log.warning("jobs_of_an_unknown_tenant_wait", tenant_id=str(tenant_id))

    def _tenant(self, tenant_id: UUID) -> Tenant | None:
        directory = self._tenancy.directory
        return None if directory.is_purged(tenant_id) else directory.get(tenant_id)

    def _share(self, tenant: Tenant) -> Share:
        limits = self._tenancy.limiter.limits_of(tenant)
        return Share(limits.weight, limits.jobs)

    # Running jobs.

    async def _give_turns(self) -> None:
        while True:
            turn = self._turns.next()
            if turn is None:
                await self._turn_due.wait()
                self._turn_due.clear()
                continue
            # Claiming is in the task too: a database that does not answer holds up the turns of its own tenant alone.
            task = spawn(None, self._take(turn), name="job of a tenant")
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, turn))

    def _ended(self, turn: Turn, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running.pop(task, None)
        self._metrics.running.set(len(self._running))
        self._turns.end(turn)
        self._turn_due.set()

    async def _take(self, turn: Turn) -> None:
        """Runs one job of the tenant, where it has one."""
        tenant = self._tenant(turn.tenant_id)
        if tenant is None or not _may_work(tenant, self._tenancy.settings.region):
            return
        try:
            claimed = await turn.queue.claim(turn.tenant_id, await self._worker_id(turn.queue))
        except _AWAY as error:
            log.warning("jobs_wait", queue=turn.queue.name, error=type(error).__name__)
            return
        if claimed is None:
            return
        task = asyncio.current_task()
        assert task is not None
        task.set_name(f"job {claimed.id}")
        self._running[task] = turn.queue, claimed
        self._metrics.running.set(len(self._running))
        # There may be more behind it; the tenant goes to the end of the line for them.
        self._turns.join(turn, self._share(tenant))
        self._turn_due.set()
        await self._work(claimed, turn.queue)

    async def _worker_id(self, queue: Queue) -> int:
        async with self._registering:
            worker_id = self._workers.get(queue)
            if worker_id is None:
                worker_id = self._workers[queue] = await queue.register()
            return worker_id

    async def _work(self, claimed: Claimed, queue: Queue) -> None:
        """One attempt, and what becomes of the job after it."""
        structlog.contextvars.bind_contextvars(job_id=claimed.id, task=claimed.task_name)
        started = time.monotonic()
        outcome = "succeeded"
        try:
            await self._attempt(claimed)
        except asyncio.CancelledError:
            outcome = "interrupted"
            with contextlib.suppress(*_AWAY):
                await queue.release(claimed)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a task raises is kept with the job
            tenant = self._tenant(claimed.tenant_id)
            if tenant is None or not _may_work(tenant, self._tenancy.settings.region):
                outcome = "held_back"
                kept = await _until_said(lambda: queue.release(claimed))
            else:
                outcome, kept = await self._fail(queue, claimed, error)
        else:
            kept = await _until_said(lambda: queue.succeed(claimed))
        finally:
            self._metrics.ended(self._known_name(claimed.task_name), outcome, time.monotonic() - started)
        if not kept:
            log.warning("job_was_lost", outcome=outcome)

    async def _attempt(self, claimed: Claimed) -> None:
        """Runs the task as the tenant of the envelope, in its own trace. Raises whatever the task does."""
        try:
            envelope = msgspec.convert(claimed.args, Envelope)
        except msgspec.ValidationError:
            raise UnreadableJob("It has no envelope.") from None
        task = self._jobs.find(claimed.task_name)
        _request_id.set(envelope.request_id)
        _traceparent.set(envelope.traceparent)
        async with self._tenancy.scope(claimed.tenant_id) as tenant:
            arguments = task.unpack(envelope.arguments)
            job = Job(claimed.id, tenant, claimed.attempts + 1, self._tenancy)
            attributes = {"messaging.system": "procrastinate", "messaging.destination.name": task.name}
            with span(f"process {task.name}", "consumer", parent=envelope.traceparent, attributes=attributes):
                async with asyncio.timeout(task.seconds):
                    await task.run(job, arguments)

    async def _fail(self, queue: Queue, claimed: Claimed, error: Exception) -> tuple[str, bool]:
        failure, again_at = self._judge(claimed, error)
        say = log.warning if again_at is not None else log.error
        # Not the error itself: what it says may quote a row, or an argument of the job.
        say(
            "job_failed",
            tenant_id=str(claimed.tenant_id),
            error=failure.type,
            reason=failure.text,
            attempt=claimed.attempts + 1,
            again_at=None if again_at is None else again_at.isoformat(),
        )
        kept = await _until_said(lambda: queue.fail(claimed, failure, again_at))
        return "failed" if again_at is None else "to_be_retried", kept

    def _judge(self, claimed: Claimed, error: Exception) -> tuple[Failure, datetime | None]:
        try:
            task = self._jobs.find(claimed.task_name)
        except UnreadableJob:
            task = None
        return describe(error), next_attempt(task, error, claimed.attempts)

    def _judge_lost(self, claimed: Claimed) -> tuple[Failure, datetime | None]:
        return self._judge(claimed, WorkerLost())

    def _known_name(self, task_name: str) -> str:
        try:
            return self._jobs.find(task_name).name
        except UnreadableJob:
            return "unknown"

    # Staying alive, and looking after those that did not.

    async def _beat(self) -> None:
        # Beside one another: a database that does not answer must not have this worker taken for dead elsewhere.
        await asyncio.gather(*(self._beat_in(queue, worker_id) for queue, worker_id in list(self._workers.items())))

    async def _beat_in(self, queue: Queue, worker_id: int) -> None:
        busy = any(at is queue for at, _ in self._running.values())
        try:
            async with asyncio.timeout(self._settings.lost_after_seconds / 2):
                if queue.own and not busy:
                    del self._workers[queue]
                    await queue.unregister(worker_id)
                elif await queue.beat(worker_id):
                    await self._give_back_strays(queue, worker_id)
                else:
                    self._stop_jobs_in(queue, worker_id)
        except _AWAY as error:
            log.warning("worker_not_heard", queue=queue.name, error=type(error).__name__)

    def _stop_jobs_in(self, queue: Queue, worker_id: int) -> None:
        """The process was away for too long: others have its jobs by now, or will in a moment."""
        del self._workers[queue]
        for task, (at, claimed) in list(self._running.items()):
            if at is queue and claimed.worker_id == worker_id:
                task.cancel()
        log.error("worker_was_taken_for_dead", queue=queue.name)

    async def _give_back_strays(self, queue: Queue, worker_id: int) -> None:
        """Where a connection breaks after a claim, the job is with a worker that lives and does not know of it."""
        running = [claimed.id for at, claimed in self._running.values() if at is queue]
        found = {job.id: job for job in await queue.strays(worker_id, running)}
        # One that is claimed in this moment is not known yet; at the next look it is.
        for job_id in found.keys() & self._strays.get(queue, set()):
            await queue.release(found.pop(job_id))
            log.warning("job_given_back", job_id=job_id)
        self._strays[queue] = set(found)

    async def _rescue(self) -> None:
        for queue in self._queues.shared.values():
            await self._rescue_from(queue)

    async def _rescue_from(self, queue: Queue) -> None:
        now, silent = time.monotonic(), self._settings.lost_after_seconds
        if now - self._rescued.get(queue, -silent) < silent / 4:
            return
        self._rescued[queue] = now
        for job in await queue.rescue(silent, self._judge_lost):
            self._metrics.lost.inc()
            log.warning("job_rescued", job_id=job.id, task=job.task_name, tenant_id=str(job.tenant_id))

    async def _measure(self) -> None:
        backlog = [tenant for queue in self._queues.shared.values() for tenant in await queue.backlog()]
        self._metrics.waiting(backlog)

    async def _sweep(self) -> None:
        for queue in self._queues.shared.values():
            await queue.sweep(timedelta(days=self._settings.keep_failed_days))

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.drain_seconds)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for queue, worker_id in self._workers.items():
            with contextlib.suppress(*_AWAY):
                await queue.unregister(worker_id)


def _may_work(tenant: Tenant, region: str | None) -> bool:
    """Whether jobs of the tenant may run here and now; those of one that may not, wait."""
    try:
        check_residency(tenant, region)
        admit(tenant, Operation.JOBS)
    except TenantryError:
        return False
    return True


async def _until_said(say: Callable[[], Awaitable[bool]]) -> bool:
    """Says how a job has ended as often as it takes: it would be held for ever, by a worker that lives."""
    backoff = Backoff()
    while True:
        try:
            return await say()
        except _AWAY as error:
            log.warning("job_end_not_said", error=type(error).__name__)
            await backoff.wait()


async def _every(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    while True:
        try:
            await work()
        except _AWAY as error:
            log.warning("jobs_wait", error=type(error).__name__)
        await asyncio.sleep(seconds)

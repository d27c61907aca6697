"""Works off the tasks, a batch at a time, in turns between tenants; any number of replicas may run."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry._clock import Clock
from tenantry._errors import TenantryError
from tenantry._tenant import Tenant
from tenantry.database import Databases, DatabaseSettings, DataCatalogue
from tenantry.events import Ack, ack_event, append_outbox_many
from tenantry.events._waiting import is_away
from tenantry.offboarding import _tasks as tasks
from tenantry.offboarding._export import Export
from tenantry.offboarding._holdings import Holding
from tenantry.offboarding._purge import Erased, Purge
from tenantry.offboarding._settings import ExportNotConfigured
from tenantry.offboarding._tasks import Task

if TYPE_CHECKING:
    from obstore.store import ObjectStore

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

POLL_SECONDS: Final = 1.0
RETRY_AFTER: Final = timedelta(seconds=30)
BATCH_ROWS: Final = 5_000


class OffboardingWorker:
    """Exports and purges for one service: into `store`, and with `settings` where tenants have places of their own."""

    def __init__(
        self,
        databases: Databases,
        catalogue: DataCatalogue,
        clock: Clock,
        *,
        store: "ObjectStore | None" = None,
        settings: DatabaseSettings | None = None,
        batch_rows: int = BATCH_ROWS,
        erased: Mapping[str, Erased] | None = None,
        holdings: Sequence[Holding] = (),
    ) -> None:
        """`erased` says for tables, by name, what is to be done about rows that a purge deletes.

        `holdings` are what the service keeps of tenants outside PostgreSQL.
        """
        self._databases = databases
        self._service = catalogue.service
        self._clock = clock
        self._purge = Purge(
            databases, catalogue, settings=settings, batch_rows=batch_rows, erased=erased or {}, holdings=holdings
        )
        self._export = None if store is None else Export(databases, catalogue, store, holdings)

    async def run(self) -> NoReturn:
        """Work until cancelled; a database or a blob store that is away is waited for."""
        while True:
            try:
                if await self.turn():
                    continue
            except (SQLAlchemyError, OSError) as error:
                log.warning("offboarding_waits", error=type(error).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def turn(self) -> bool:
        """Do a batch of the task that has waited longest; whether there was one. One transaction."""
        now = self._clock.now()
        async with self._databases.system_session() as session:
            task = await tasks.claim(session, now)
            if task is None:
                return False
            try:
                async with session.begin_nested():
                    await self._advance(session, task)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a task is not the end of the others
                # Where it is this database that is away, what follows fails as well, and `run` waits.
                await self._stick(session, task, error, now)
            else:
                await tasks.touch(session, task, now)
        return True

    async def _stick(self, session: AsyncSession, task: Task, error: Exception, now: datetime) -> None:
        """Try the task again later, and say to whoever waits for it why, unless time alone will help.

        The saga's attempt fails, so the reason is seen in its run; whoever asks again waits for the same task.
        """
        reason = _reason(error)
        if reason.waits:
            log.warning("offboarding_waits", task=str(task.id), kind=task.kind, error=reason.detail)
        else:
            log.error("offboarding_stuck", task=str(task.id), kind=task.kind, exc_info=error)
            waiting = await tasks.answered(session, task)
            await self._answer(
                session,
                task,
                [
                    Ack(
                        request_id=request_id,
                        service=self._service,
                        outcome="failed",
                        error_code=reason.code,
                        detail=reason.detail,
                        retryable=reason.retryable,
                    )
                    for request_id in waiting
                ],
                now,
            )
        await tasks.touch(session, task, now + RETRY_AFTER, error=f"{reason.code}: {reason.detail}")

    async def _advance(self, session: AsyncSession, task: Task) -> None:
        now = self._clock.now()
        tenant = msgspec.convert(task.tenant, Tenant)
        if task.kind == "purge":
            result = await self._purge.advance(session, task, tenant)
        elif self._export is None:
            raise ExportNotConfigured
        else:
            result = await self._export.advance(session, task, tenant, now)
        if result is None:
            return
        await tasks.finish(session, task, result, now)
        await self._answer(
            session,
            task,
            [
                Ack(request_id=request_id, service=self._service, outcome="done", result=result)
                for request_id in await tasks.answered(session, task)
            ],
            now,
        )

    async def _answer(self, session: AsyncSession, task: Task, acks: Sequence[Ack], now: datetime) -> None:
        version = int(now.timestamp() * 1_000_000)
        key = str(task.tenant_id)
        events = [ack_event(key, ack, task.tenant_id, version=version) for ack in acks]
        await append_outbox_many(await session.connection(), events)


class _Reason(NamedTuple):
    code: str
    detail: str
    waits: bool = False
    """Nothing is wrong with the task."""
    retryable: bool = False
    """Asking again later may help, without anybody's doing."""


def _reason(error: Exception) -> _Reason:
    if isinstance(error, TenantryError):
        return _Reason(error.type, str(error), waits=error.status >= HTTPStatus.INTERNAL_SERVER_ERROR)
    # The message of any other error may hold values of rows.
    return _Reason("internal-error", type(error).__name__, waits=is_away(error), retryable=True)

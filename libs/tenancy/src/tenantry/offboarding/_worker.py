"""Works off the tasks, a batch at a time, in turns between tenants; any number of replicas may run."""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry._clock import Clock
from tenantry._errors import TenantryError, Unavailable
from tenantry._tenant import Tenant
from tenantry.database import Databases, DatabaseSettings, DataCatalogue
from tenantry.events import Ack, ack_event, append_outbox_many
from tenantry.offboarding import _tasks as tasks
from tenantry.offboarding._export import Export
from tenantry.offboarding._purge import Purge
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
    ) -> None:
        self._databases = databases
        self._service = catalogue.service
        self._clock = clock
        self._purge = Purge(databases, catalogue, settings=settings, batch_rows=batch_rows)
        self._export = None if store is None else Export(databases, catalogue, store)

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
            except TenantryError as error:
                log.exception("offboarding_stuck", task=str(task.id), kind=task.kind)
                await tasks.touch(session, task, now + RETRY_AFTER, error=f"{error.type}: {error}")
            else:
                await tasks.touch(session, task, now)
        return True

    async def _advance(self, session: AsyncSession, task: Task) -> None:
        now = self._clock.now()
        tenant = msgspec.convert(task.tenant, Tenant)
        if task.kind == "purge":
            result = await self._purge.advance(session, task, tenant)
        elif self._export is None:
            raise Unavailable("exports have no store")
        else:
            result = await self._export.advance(session, task, tenant, now)
        if result is None:
            return
        waiting = await tasks.finish(session, task, result, now)
        version = int(now.timestamp() * 1_000_000)
        acks = [
            ack_event(
                str(task.tenant_id),
                Ack(request_id=request_id, service=self._service, outcome="done", result=result),
                task.tenant_id,
                version=version,
            )
            for request_id in waiting
        ]
        await append_outbox_many(await session.connection(), acks)

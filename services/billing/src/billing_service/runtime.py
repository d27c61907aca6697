"""What a process of the billing service is made of: the one place where it is put together."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

import structlog

from billing_service.catalogue import SERVICE
from billing_service.settings import BillingSettings
from tenantry import Clock, SystemClock, Tenancy, TenancySettings, Unavailable
from tenantry.database import Databases, DatabaseSettings
from tenantry.events import KafkaDirectory, KafkaSettings, Request

__all__ = ["SERVICE", "Runtime", "running"]

log = structlog.get_logger(__name__)

_FRESH_WITHIN_SECONDS: Final = 30.0
_CLOCK_WITHIN_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of a process. Nothing is open before `tenancy.run` is entered."""

    settings: BillingSettings
    kafka: KafkaSettings
    source: KafkaDirectory
    tenancy: Tenancy

    @classmethod
    def from_env(cls, clock: Clock | None = None) -> Self:
        """Raises pydantic's ValidationError for what is missing."""
        return cls.of(
            BillingSettings.from_env(), TenancySettings(), KafkaSettings(), DatabaseSettings.from_env(SERVICE), clock
        )

    @classmethod
    def of(
        cls,
        settings: BillingSettings,
        platform: TenancySettings,
        kafka: KafkaSettings,
        database: DatabaseSettings,
        clock: Clock | None = None,
    ) -> Self:
        source = KafkaDirectory(kafka)
        databases = Databases(SERVICE, database, follow_placement=False)
        tenancy = Tenancy(SERVICE, platform, source=source, databases=databases, clock=clock or SystemClock())
        return cls(settings, kafka, source, tenancy)

    async def when_ready(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` once the directory knows the tenants."""
        while not self.source.ready:  # noqa: ASYNC110 - it becomes ready by itself and tells nobody
            await asyncio.sleep(_POLL_SECONDS)
        await work()

    async def freshen(self) -> None:
        """Return once the directory holds everything that had been published when this was called.

        Raises TimeoutError where Kafka does not answer for long.
        """
        called = time.time()
        async with asyncio.timeout(_FRESH_WITHIN_SECONDS):
            while time.time() - self.source.lag_seconds < called:  # noqa: ASYNC110 - a time that passes, not an event
                await asyncio.sleep(_POLL_SECONDS)

    async def clock_advanced(self, request: Request) -> None:
        """Answer `clock.advance`: every tenant of that clock must be known to be at its new time.

        Nothing else is to be done: what is due is worked out when a run asks for it. Raises Unavailable where they do
        not arrive, after which the request is taken again.
        """
        clock_id, to = UUID(request.data["clock_id"]), datetime.fromisoformat(request.data["to"])
        directory = self.source.directory

        def arrived() -> bool:
            return all(tenant.clock.now >= to for tenant in directory if tenant.clock and tenant.clock.id == clock_id)

        try:
            await self.source.wait_for(arrived, _CLOCK_WITHIN_SECONDS)
        except TimeoutError:
            raise Unavailable(f"the tenants of clock {clock_id} are not known to be at {to}") from None


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` beside the block and cancel it at the end. An error of it is logged at once and raised then."""
    task = asyncio.create_task(work)
    task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("background work failed", exc_info=error)

"""A directory that asks its source again and again."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Final, Protocol

import structlog
from prometheus_client import Counter

from tenantry._backoff import Backoff
from tenantry._directory import LocalDirectory
from tenantry._tenant import Tier
from tenantry.directory._listing import ListedTenants, Listing
from tenantry.directory._records import TenantFields

log = structlog.get_logger(__name__)

FAILED = Counter("tenantry_directory_failures_total", "Attempts to read the directory's source that failed", ["source"])
REFUSED = Counter("tenantry_directory_records_refused_total", "Records of tenants that could not be read", ["source"])

_LONGEST_PAUSE: Final = 30.0


class TenantListing(Protocol):
    """Where tenants are listed: `TenantQuery`, `TenantEndpoint`, `TenantFile`, or a company's own."""

    name: str
    """Of the source, for metrics and logs."""

    async def read(self) -> Listing:
        """All tenants, or what has changed since the last call that returned. Raises whatever went wrong."""
        ...

    async def changed(self, seconds: float) -> None:
        """Returns after `seconds`, or earlier where the source has said that something has changed."""
        ...

    async def close(self) -> None:
        """Lets go of connections; `read` may be called again after it."""
        ...


class PolledDirectory:
    """Follows a `TenantListing`: reads it every `interval` seconds, and sooner where it says so.

    An error leaves the directory as it is, is counted and tried again with growing pauses; how old the directory is
    goes on growing meanwhile. A tenant goes only when a complete listing is without it.
    """

    def __init__(
        self,
        listing: TenantListing,
        *,
        interval: float = 5.0,
        fields: TenantFields | None = None,
        tiers: Iterable[Tier] = (),
        timeout: float = 30.0,
    ) -> None:
        """`fields` is what the source calls things, `timeout` how long one reading may take."""
        self.directory = LocalDirectory()
        for tier in tiers:
            self.directory.upsert_tier(tier)
        self._listing = listing
        self._interval = interval
        self._timeout = timeout
        self._listed = ListedTenants(self.directory, fields or TenantFields())
        self._current_at: float | None = None
        self._first = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def lag_seconds(self) -> float:
        """Seconds since the last successful reading began; infinite before the first."""
        return float("inf") if self._current_at is None else time.monotonic() - self._current_at

    async def start(self) -> None:
        """Returns when the source has been read once; tries for ever. `stop` it even if it was cancelled."""
        self._task = asyncio.create_task(self._follow(), name=f"directory {self._listing.name}")
        await self._first.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._listing.close()

    async def refresh(self) -> None:
        """Reads the source now. Raises what it raises; the directory is then as it was."""
        began = time.monotonic()
        async with asyncio.timeout(self._timeout):
            listing = await self._listing.read()
        refused = await self._listed.take(listing)
        REFUSED.labels(self._listing.name).inc(refused)
        self._current_at = began
        self.directory.ready = True
        self._first.set()

    async def _follow(self) -> None:
        backoff = Backoff(longest=min(self._interval, _LONGEST_PAUSE))
        while True:
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - whatever it is, the directory stays and the source is asked again
                FAILED.labels(self._listing.name).inc()
                log.warning("directory_waits", source=self._listing.name, error=repr(error))
                with contextlib.suppress(Exception):
                    await self._listing.close()
                await backoff.wait()
            else:
                backoff.reset()
                await self._listing.changed(self._interval)

"""Values of one type under one name: read, loaded once for all who ask, kept, forgotten."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

import structlog
from prometheus_client import Counter

from tenantry._tenant import Tenant
from tenantry.cache._core import Core, FlightKey, LeaderLeft, choose, leading
from tenantry.cache._envelope import Codec, Foreign
from tenantry.cache._store import Found

log = structlog.get_logger(__name__)

T = TypeVar("T")

_JITTER: Final = 0.1
_RENEW_SECONDS: Final = 1.5
_FIRST_POLL: Final = 0.01
_LAST_POLL: Final = 0.2

_READS: Final = Counter("tenantry_cache_reads_total", "Values that were asked for.", ("namespace", "outcome"))
_FOREIGN: Final = Counter(
    "tenantry_cache_foreign_values_total", "Values that did not belong where they were found.", ("reason",)
)


class Namespace(Generic[T]):
    """The values of one type under one name; made by `TenantCache.namespace`."""

    def __init__(
        self, core: Core, name: str, codec: Codec[T], ttl: timedelta, negative_ttl: timedelta, versioned: bool
    ) -> None:
        self._core = core
        self._store = core.store
        self._name = name
        self._codec = codec
        self._ttl = ttl.total_seconds()
        self._negative_ttl = negative_ttl.total_seconds()
        self._versioned = versioned
        self._hits = _READS.labels(name, "hit")
        self._misses = _READS.labels(name, "miss")

    async def get(self, key: str, *, tenant: Tenant | None = None) -> T | None:
        """The value; None where none is known, or where it is known that there is none. Raises `NoTenant`."""
        chosen = choose(tenant)
        found = await self._store.find(chosen.id, self._name, key, self._stamp(chosen), lease=False)
        known, value = await self._open(chosen, key, found)
        (self._hits if known else self._misses).inc()
        return value

    async def get_or_load(
        self, key: str, load: Callable[[], Awaitable[T | None]], *, tenant: Tenant | None = None
    ) -> T | None:
        """The value, loaded by `load` where it is not known: once for all who ask at the same time.

        `load` must not depend on who asks beside the tenant. What it raises is raised to all who wait for it; where the
        task that runs it is cancelled, another one runs its own. It should use the session that the task has already:
        those who wait may hold all others. Raises `NoTenant`; a store that is away only means that `load` is called.
        """
        chosen = choose(tenant)
        flights = self._core.flights
        missed = False
        while True:
            found = await self._store.find(chosen.id, self._name, key, self._stamp(chosen), lease=False)
            known, value = await self._open(chosen, key, found)
            if not missed:
                (self._hits if known else self._misses).inc()
            if known:
                return value
            missed = True
            flight = (chosen.id, self._name, key, found.epoch)
            if flight not in flights:
                return await self._lead(chosen, key, flight, load)
            if flight in leading.get():
                return await load()
            try:
                async with asyncio.timeout(self._core.patience):
                    result: T | None = await asyncio.shield(flights[flight])
            except LeaderLeft:
                continue
            except TimeoutError:
                return await load()
            return result

    async def put(self, key: str, value: T, *, tenant: Tenant | None = None) -> None:
        """Keeps `value`, instead of whatever is known or being loaded."""
        chosen = choose(tenant)
        await self._discard(chosen, key)
        found = await self._store.find(chosen.id, self._name, key, self._stamp(chosen), lease=True)
        if found.lease is not None:
            await self._keep(chosen, found, value)

    async def discard(self, key: str, *, tenant: Tenant | None = None) -> None:
        """Forgets one value, after what it was made of has changed. What is being loaded now is not stored any more."""
        await self._discard(choose(tenant), key)

    async def flush(self, *, tenant: Tenant | None = None) -> None:
        """Forgets all values of the tenant in this namespace, as `TenantCache.flush` does."""
        await self._core.flush(choose(tenant), self._name)

    async def _lead(
        self, tenant: Tenant, key: str, flight: FlightKey, load: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        flights = self._core.flights
        done: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_look_at)
        flights[flight] = done
        token = leading.set(leading.get() | {flight})
        try:
            value = await self._load(tenant, key, load)
        except Exception as error:
            done.set_exception(error)
            raise
        except BaseException:
            done.set_exception(LeaderLeft())
            raise
        finally:
            leading.reset(token)
            if flights.get(flight) is done:
                del flights[flight]
        done.set_result(value)
        return value

    async def _load(self, tenant: Tenant, key: str, load: Callable[[], Awaitable[T | None]]) -> T | None:
        stamp = self._stamp(tenant)
        pause, patience = _FIRST_POLL, self._core.patience
        while True:
            # The epoch of this answer is from before the load: after a flush, what was loaded is not stored under it.
            found = await self._store.find(tenant.id, self._name, key, stamp, lease=True)
            known, value = await self._open(tenant, key, found)
            if known:
                return value
            if found.lease is not None:
                return await self._load_under_lease(tenant, found, load)
            if found.epoch is None or patience <= 0:
                return await load()
            # Another process loads it.
            await asyncio.sleep(pause)
            patience -= pause
            pause = min(_LAST_POLL, pause * 2)

    async def _load_under_lease(
        self, tenant: Tenant, found: Found, load: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        kept = False
        try:
            async with self._renewed(found):
                value = await load()
            kept = await self._keep(tenant, found, value)
        finally:
            if not kept:
                await asyncio.shield(self._store.abandon(tenant.id, found))
        return value

    @asynccontextmanager
    async def _renewed(self, found: Found) -> AsyncIterator[None]:
        async def renew() -> None:
            while True:
                await asyncio.sleep(_RENEW_SECONDS)
                await self._store.renew(found)

        task = asyncio.create_task(renew())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep(self, tenant: Tenant, found: Found, value: T | None) -> bool:
        seconds = self._negative_ttl if value is None else self._ttl
        if seconds <= 0:
            return False
        seconds *= 1 - _JITTER * self._core.uniform()
        sealed = self._codec.seal(tenant.id, found.name, value)
        return await self._store.store(tenant.id, self._name, found, sealed, seconds)

    async def _open(self, tenant: Tenant, key: str, found: Found) -> tuple[bool, T | None]:
        if found.value is None:
            return False, None
        try:
            return True, self._codec.open(tenant.id, found.name, found.value)
        except Foreign as foreign:
            # Never the value: somebody wrote past this library, or an older process another type.
            _FOREIGN.labels(foreign.reason).inc()
            level = log.warning if foreign.reason == "type" else log.error
            level("cached_value_refused", reason=foreign.reason, namespace=self._name, tenant_id=str(tenant.id))
            await self._store.discard(tenant.id, self._name, key, self._stamp(tenant))
            return False, None

    async def _discard(self, tenant: Tenant, key: str) -> None:
        self._core.forget(tenant.id, self._name, key)
        await self._store.discard(tenant.id, self._name, key, self._stamp(tenant))

    def _stamp(self, tenant: Tenant) -> str:
        place = 0 if tenant.placement is None else tenant.placement.epoch
        return f"{place}v{tenant.version}" if self._versioned else str(place)


def _look_at(done: "asyncio.Future[Any]") -> None:
    """Nobody may have waited; an error that nobody saw here was raised to the one who loaded."""
    if not done.cancelled():
        done.exception()

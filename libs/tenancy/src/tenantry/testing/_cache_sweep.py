"""Every cached call of a product, primed by one tenant and read by another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from tenantry import Tenant, tenant_scope
from tenantry.cache import CacheStore, Found, TenantCache
from tenantry.testing._report import SweepReport, found_words

AWKWARD_KEYS: Final = ("same", "x:y", "{x}", "..", "t:0:epoch", "#1", "é" * 200)
_AT_ONCE: Final = 40


@dataclass(frozen=True, slots=True)
class CachedCall:
    """A call whose answer is cached: asked with a key inside a tenant's scope, it answers what is that tenant's.

    ``flush``, inside a tenant's scope, forgets what is cached for it; None where nothing ever has to be forgotten.
    """

    name: str
    read: Callable[[str], Awaitable[object]]
    flush: Callable[[], Awaitable[None]] | None = None


async def sweep_cache(
    calls: Sequence[CachedCall],
    a: Tenant,
    b: Tenant,
    words: tuple[Collection[str], Collection[str]],
    *,
    cache: TenantCache | None = None,
    keys: Sequence[str] = AWKWARD_KEYS,
) -> SweepReport:
    """Primes each call as A and reads it as B, and the other way round, one after the other and at the same time.

    ``words`` are those of A and of B: every answer must hold one of its own tenant's and none of the other's. Where
    ``cache`` is what the calls keep their values in, a flush must forget all of one tenant's values and none of the
    other's, and a value of A that its store gives to B, as a store that mixes them up would, must not be served.
    Raises SweepFailed.
    """
    sweep = _CacheSweep((a, b), words)
    for call in calls:
        for key in keys:
            for order in ((0, 1, 0, 1), (1, 0, 1, 0)):
                for side in order:
                    await sweep.read(call, key, side, "one after the other")
        await sweep.read_at_once(call, f"{keys[0]} at once")
        if cache is not None:
            async with _watched(cache) as store:
                await sweep.flush(call, f"{keys[0]} flushed", store)
                await sweep.poison(call, f"{keys[0]} poisoned", store)
    return sweep.report.concluded()


class _CacheSweep:
    def __init__(self, tenants: tuple[Tenant, Tenant], words: tuple[Collection[str], Collection[str]]) -> None:
        self.report = SweepReport("cache")
        self._tenants = tenants
        self._words = words

    async def read(self, call: CachedCall, key: str, side: int, position: str) -> None:
        with tenant_scope(self._tenants[side]):
            try:
                answer = repr(await call.read(key))
            except Exception as error:  # noqa: BLE001 - whatever the product raises
                self.report.leak(call.name, position, f"fails for key {key[:20]!r}: {error!r}")
                return
        self.report.tried[call.name] += 1
        if found := found_words(self._words[1 - side], answer, key):
            self.report.leak(
                call.name, position, f"key {key[:20]!r} gives {'AB'[side]} what is the other's: {found[:3]}"
            )
        elif not found_words(self._words[side], answer, key):
            self.report.blindness(
                call.name, position, f"key {key[:20]!r} gives {'AB'[side]} no word of its own: {answer[:80]}"
            )

    async def read_at_once(self, call: CachedCall, key: str) -> None:
        await asyncio.gather(*(self.read(call, key, number % 2, "at the same time") for number in range(_AT_ONCE)))

    async def flush(self, call: CachedCall, key: str, store: "_Watch") -> None:
        for side in (0, 1):
            await self.read(call, key, side, "flush")
        held = []
        for side in (0, 1):
            if await self._kept(call, key, side, store) is None:
                self.report.blindness(call.name, "flush", "what was read is not in the cache that was given")
                return
            held.append(store.answers[0])
        if held[0].value is not None and held[0].value == held[1].value:
            self.report.leak(call.name, "store", f"A and B are given the same value, {held[0].name!r}")
        if call.flush is None:
            return
        with tenant_scope(self._tenants[0]):
            await call.flush()
        if await self._kept(call, key, 1, store) is False:
            self.report.leak(call.name, "flush", "a flush by A has forgotten what is B's")
        if await self._kept(call, key, 0, store):
            self.report.leak(call.name, "flush", "a flush by A has not forgotten what is A's")

    async def poison(self, call: CachedCall, key: str, store: "_Watch") -> None:
        """The store answers B with what it holds for A."""
        for side in (0, 1):
            await self.read(call, key, side, "poisoned value")
        await self._kept(call, key, 0, store)
        store.answer_all = store.answers[0].value if store.answers else None
        await self.read(call, key, 1, "poisoned value")
        store.answer_all = None

    async def _kept(self, call: CachedCall, key: str, side: int, store: "_Watch") -> bool | None:
        """Whether the store held the value when the tenant read it; None where the store was not asked."""
        store.answers, store.asked_for = [], set()
        await self.read(call, key, side, "flush")
        if foreign := store.asked_for - {self._tenants[side].id}:
            self.report.leak(call.name, "store", f"reads of {'AB'[side]} asked for values of {foreign}")
        return store.answers[0].value is not None if store.answers else None


class _Watch:
    """What a store was asked and has answered, and what it is to answer instead."""

    def __init__(self) -> None:
        self.answers: list[Found] = []
        """The first is what was found; a miss is asked for again, for the lease."""
        self.asked_for: set[UUID] = set()
        self.answer_all: bytes | None = None


@asynccontextmanager
async def _watched(cache: TenantCache) -> AsyncIterator[_Watch]:
    """Watches the store of a cache; namespaces hold it by reference, so it is its own method that is replaced."""
    store: CacheStore = cache._core.store  # noqa: SLF001 - a cache shows its store to nobody else
    find, watch = store.find, _Watch()

    async def watched_find(tenant_id: UUID, namespace: str, key: str, stamp: str, **options: Any) -> Found:
        found = await find(tenant_id, namespace, key, stamp, **options)
        watch.answers.append(found)
        watch.asked_for.add(tenant_id)
        return found if watch.answer_all is None else found._replace(value=watch.answer_all)

    cast("Any", store).find = watched_find
    try:
        yield watch
    finally:
        cast("Any", store).find = find

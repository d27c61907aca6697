"""A cache in which every value has a tenant, and no call does without one."""

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, ParamSpec, Protocol, TypeVar, overload

from tenantry._tenant import Tenant
from tenantry.cache._core import Core, choose
from tenantry.cache._envelope import Codec
from tenantry.cache._function import CachedFunction, key_of_arguments, result_type
from tenantry.cache._keys import check_namespace
from tenantry.cache._namespace import Namespace
from tenantry.cache._store import CacheStore

T = TypeVar("T")
P = ParamSpec("P")

MAX_TTL: Final = timedelta(days=1)
_NEGATIVE_TTL: Final = timedelta(seconds=5)


class Cached(Protocol):
    """What makes a cached function of any async one."""

    def __call__(self, function: Callable[P, Awaitable[T]], /) -> CachedFunction[P, T]: ...


class TenantCache:
    """Values by tenant, namespace and key, in a store. Belongs to one event loop.

    The tenant is the current one, or the one that is given where none is set. There is no call that sees or forgets
    values of more than one tenant.
    """

    def __init__(
        self, store: CacheStore, *, patience: float = 5.0, uniform: Callable[[], float] = random.random
    ) -> None:
        """`patience` is how many seconds somebody waits for a value that another one loads, before loading it too."""
        self._core = Core(store, patience, uniform)

    def namespace(
        self,
        name: str,
        value_type: type[T],
        *,
        ttl: timedelta,
        negative_ttl: timedelta = _NEGATIVE_TTL,
        versioned: bool = False,
    ) -> Namespace[T]:
        """Values of one type, each kept for `ttl` at most and for up to a tenth less, so that they do not end together.

        That there is no value is kept for `negative_ttl`; zero is not at all. `versioned` values end with every change
        of the tenant's document: its status, tier, flags; all values end when the tenant moves. Raises `ValueError` for
        a `ttl` that is not above zero and at most a day, and `TypeError` for a type that msgspec cannot read back.
        """
        if not timedelta(0) < ttl <= MAX_TTL or not timedelta(0) <= negative_ttl <= MAX_TTL:
            raise ValueError("a value is kept for some time, and for a day at most")
        return Namespace(self._core, check_namespace(name), Codec(value_type), ttl, min(negative_ttl, ttl), versioned)

    @overload
    def cached(
        self,
        name: str,
        ttl: timedelta,
        *,
        key: None = None,
        negative_ttl: timedelta = _NEGATIVE_TTL,
        versioned: bool = False,
    ) -> Cached: ...
    @overload
    def cached(
        self,
        name: str,
        ttl: timedelta,
        *,
        key: Callable[P, str],
        negative_ttl: timedelta = _NEGATIVE_TTL,
        versioned: bool = False,
    ) -> Callable[[Callable[P, Awaitable[T]]], CachedFunction[P, T]]: ...
    def cached(
        self,
        name: str,
        ttl: timedelta,
        *,
        key: Callable[P, str] | None = None,
        negative_ttl: timedelta = _NEGATIVE_TTL,
        versioned: bool = False,
    ) -> Callable[[Callable[P, Awaitable[T]]], CachedFunction[P, T]]:
        """Decorates an async function whose results are cached, for the tenant in whose name it is called.

        The key is what `key` makes of the arguments, else the arguments themselves, which must be plain data then. The
        value's type is the annotation of the result. Options are those of `namespace`.
        """

        def decorate(function: Callable[P, Awaitable[T]]) -> CachedFunction[P, T]:
            values = self.namespace(
                name, result_type(function), ttl=ttl, negative_ttl=negative_ttl, versioned=versioned
            )
            return CachedFunction(function, values, key or key_of_arguments(function))

        return decorate

    async def flush(self, tenant: Tenant | None = None) -> None:
        """Forgets all values of the tenant, at the cost of one write. What is being loaded now is not stored any more.

        While the server is away it is done as soon as that answers; this process reads nothing of the tenant before.
        """
        await self._core.flush(choose(tenant), None)

    async def keep(self) -> None:
        """What the cache does by the side, until it is cancelled."""
        await self._core.store.keep()

"""Entitlements as a demand of a route: beside it, as a dependency, or on it, as a decorator."""

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from starlette.requests import HTTPConnection

from tenantry.entitlements._entitlements import Entitlements

if TYPE_CHECKING:
    from tenantry._tenancy import Tenancy

P = ParamSpec("P")
T = TypeVar("T")


def requires(
    feature: str | None = None, *, quota: str | None = None, amount: int = 1
) -> Callable[[HTTPConnection], Awaitable[None]]:
    """A dependency: the tenant has `feature` (else 403), and `amount` of `quota` is left and is taken (else 402).

        @app.post("/v1/documents", dependencies=[Depends(requires("search", quota="documents"))])

    Needs `TENANTRY_ENTITLEMENTS=kafka`.
    """
    _check_demand(feature, quota)

    # A coroutine function: FastAPI runs plain ones in a thread.
    async def check(connection: HTTPConnection) -> None:
        tenancy: Tenancy = connection.app.state.tenancy
        _demand(tenancy.entitlements, feature, quota, amount)

    return check


def demanding(
    entitlements: Callable[[], Entitlements], feature: str | None, quota: str | None, amount: int
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """A decorator for `Tenancy.requires`. Raises TypeError on a plain function, which would run in a thread."""
    _check_demand(feature, quota)

    def decorate(route: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        if not iscoroutinefunction(route):
            raise TypeError(f"{route!r} is no coroutine function: use the dependency tenantry.entitlements.requires")

        @wraps(route)
        async def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            _demand(entitlements(), feature, quota, amount)
            return await route(*args, **kwargs)

        return checked

    return decorate


def _check_demand(feature: str | None, quota: str | None) -> None:
    if feature is None and quota is None:
        raise ValueError("name a feature, a quota or both")


def _demand(entitlements: Entitlements, feature: str | None, quota: str | None, amount: int) -> None:
    if feature is not None:
        entitlements.require(feature)
    if quota is not None:
        entitlements.check(quota, amount)

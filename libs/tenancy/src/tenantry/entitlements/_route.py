"""Entitlements as a demand of a route."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from tenantry._tenancy import Tenancy


def requires(
    feature: str | None = None, *, quota: str | None = None, amount: int = 1
) -> Callable[[HTTPConnection], Awaitable[None]]:
    """A dependency: the tenant has `feature` (else 403), and `amount` of `quota` is left and is taken (else 402).

        @app.post("/v1/documents", dependencies=[Depends(requires("search", quota="documents"))])

    Needs `TENANTRY_ENTITLEMENTS=kafka`.
    """
    if feature is None and quota is None:
        raise ValueError("name a feature, a quota or both")

    # A coroutine function: FastAPI runs plain ones in a thread.
    async def check(connection: HTTPConnection) -> None:
        tenancy: Tenancy = connection.app.state.tenancy
        if feature is not None:
            tenancy.entitlements.require(feature)
        if quota is not None:
            tenancy.entitlements.check(quota, amount)

    return check

"""The limits of tenants, where requests come in: after the caller is known, before anything is read or done for it."""

from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import Message, Receive, Scope

from tenantry._errors import RateLimited
from tenantry._tenant import Operation, Tenant
from tenantry.http._routes import RouteRules
from tenantry.limits import Admission, Limiter, RefusalPace

Cost = int | Callable[[Scope], int]
"""How many units of its tenant's rate a request takes, told before its body is read; 0 is free."""

OPERATION_KEY: Final = "tenantry.operation"
"""Where the middleware leaves the `Operation` of a request in its ASGI scope; absent where no limit applies."""


def by_length(unit: int, *, undeclared: int) -> Callable[[Scope], int]:
    """A cost of one for every `unit` bytes of the body that were begun; `undeclared` where no length is declared."""

    def cost(scope: Scope) -> int:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                return max(1, -(-int(value) // unit))
        chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        return undeclared if chunked or scope.get("http_version", "1.1") != "1.1" else 1

    return cost


class RequestLimiting:
    """Applies a `Limiter` to requests and to what comes in over WebSockets."""

    def __init__(
        self, limiter: Limiter, costs: Mapping[str, Cost] | None = None, *, pace: RefusalPace | None = None
    ) -> None:
        """`costs` are those of single routes, written as `RouteRules` takes them; every other request costs one."""
        self._limiter = limiter
        self._pace = pace or RefusalPace()
        self._costs: RouteRules[Cost] = RouteRules(costs or {})

    async def admit(self, scope: Scope, tenant: Tenant) -> Admission | None:
        """Lets the request in, whose place is to be released at its end; None where no limit applies to it.

        Raises the error that refuses it: 429 with the tenant's limit, 503 where the process is full. The 429 of a
        tenant that has been told so many times a second already comes late.
        """
        operation: Operation | None = scope.get(OPERATION_KEY)
        if operation is None:
            return None
        cost = self._costs.find(scope.get("method", "GET"), scope["path"], 1)
        try:
            return await self._limiter.admit(tenant, operation, cost if isinstance(cost, int) else cost(scope))
        except RateLimited:
            await self._pace.wait(tenant.id)
            raise

    def received(self, scope: Scope, receive: Receive, tenant: Tenant) -> Receive:
        """`receive` of a WebSocket, each message of which counts as a request does. Raises as `admit` does."""
        operation: Operation | None = scope.get(OPERATION_KEY)
        if operation is None:
            return receive

        async def counted() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                await self._limiter.charge(tenant, operation)
            return message

        return counted

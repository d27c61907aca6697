"""The one way into a service: who asks, for which tenant, and whether that tenant may, before any route is looked at.

Pure ASGI: a middleware that runs the application in another task would lose the tenant on the way (Starlette's
BaseHTTPMiddleware does).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uuid_utils import uuid7 as fast_uuid7

from tenantry._admission import admit
from tenantry._context import _current, _request_id
from tenantry._directory import TenantDirectory
from tenantry._errors import InvalidRequest, TenantryError, Unavailable
from tenantry._tenant import Operation
from tenantry.http._exchange import HttpExchange, ResponseCut, WebSocketExchange
from tenantry.http._metering import RequestMetering
from tenantry.http._metrics import RequestMetrics
from tenantry.http._problems import problem
from tenantry.http._routes import RouteRules
from tenantry.http._service import OPERATIONAL_PATHS
from tenantry.identity._identify import Identifier, Identity

IDENTITY_KEY: Final = "tenantry.identity"
"""Where the middleware leaves the `Identity` of a request in its ASGI scope."""

_REQUEST_ID_HEADER: Final = b"x-request-id"
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class TenancyMiddleware:
    """Identifies, checks the tenant's status, binds the tenant to the task, measures and meters.

    Everything is decided from local memory, for each request anew, so a suspension holds from the moment at which the
    directory knows of it; responses that stream are checked again every second while they last.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        directory: TenantDirectory,
        identifier: Identifier,
        public: Iterable[str] = (),
        operations: Mapping[str, Operation | None] | None = None,
        administrative: bool = False,
        metering: RequestMetering | None = None,
    ) -> None:
        """`public` are routes that need no credential, beside health, metrics and docs.

        `operations` say what a route is for the tenant's status (`{"POST /v1/events": Operation.INGEST}`; None is not
        checked); by default GET, HEAD and OPTIONS read and everything else writes. Both are written as `RouteRules`
        takes them. In an `administrative` service the tenants are what operators and services work on, so no status
        of a tenant stops those; it stops the tenant's own credentials as everywhere.
        """
        self._app = app
        self._directory = directory
        self._identify = identifier.identify
        self._public = RouteRules(dict.fromkeys((*OPERATIONAL_PATHS, *public), True))
        self._operations = RouteRules(operations or {})
        self._administrative = administrative
        self._metrics = RequestMetrics(service)
        self._metering = metering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _find_request_id(scope["headers"])
        exchange = HttpExchange(scope, receive, send, self._metrics, request_id)
        request_reset = _request_id.set(request_id)
        tenant_reset = None
        try:
            if not self._public.find(scope["method"], scope["path"], False):
                identity = self.admit(scope)
                tenant = identity.tenant
                if tenant is not None:
                    tenant_reset = _current.set(tenant)
                    metering = self._metering
                    if metering is not None:
                        metering.check()
                        exchange.meter(metering, tenant)
                exchange.recheck = self.admit
            _check_text(scope)
            await self._app(scope, exchange.receive if exchange.metered else receive, exchange.send)
        except TenantryError as error:
            # Raised before the application was called, or by a middleware between this one and its error handlers.
            if exchange.started:
                raise
            await problem(error, scope["path"])(scope, receive, exchange.send)
        except Exception:
            if not exchange.cut:
                exchange.status = 500  # what the outermost error handler answers
                raise
        finally:
            if tenant_reset is not None:
                _current.reset(tenant_reset)
            _request_id.reset(request_reset)
            if not exchange.finished:
                exchange.abandon()

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = WebSocketExchange(scope, send, self.admit)
        request_reset = _request_id.set(_find_request_id(scope["headers"]))
        tenant_reset = None
        try:
            if not self._public.find("GET", scope["path"], False):
                identity = self.admit(scope)
                if identity.tenant is not None:
                    tenant_reset = _current.set(identity.tenant)
            await self._app(scope, receive, exchange.send)
        except TenantryError as error:
            await exchange.close(error)
        except ResponseCut:
            pass
        finally:
            if tenant_reset is not None:
                _current.reset(tenant_reset)
            _request_id.reset(request_reset)

    def admit(self, scope: Scope) -> Identity:
        """Who asks and for which tenant, once that tenant may do what the request does. Leaves it in the scope too.

        Raises the `TenantryError` that refuses the request.
        """
        if not self._directory.ready:
            raise Unavailable("The tenants are not known yet; the service has just started.")
        identity = self._identify(scope)
        scope[IDENTITY_KEY] = identity
        principal, tenant = identity
        if tenant is not None and not (self._administrative and principal.acts_for_any_tenant):
            method = scope.get("method", "GET")
            operation = self._operations.find(
                method, scope["path"], Operation.READ if method in _READS else Operation.WRITE
            )
            if operation is Operation.INGEST and principal.acts_for_any_tenant:
                operation = Operation.SERVICE_INGEST
            if operation is not None:
                admit(tenant, operation)
        return identity


def _check_text(scope: Scope) -> None:
    """Refuses the one character that no database stores, in the one place that every path and query comes through."""
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise InvalidRequest("The address contains the character NUL.")


def _find_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's request id where it has a harmless form, else a new one."""
    for name, value in headers:
        if name == _REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return str(fast_uuid7())

"""The one way into a service: who asks, for which tenant, and whether that tenant may, before any route is looked at.

Pure ASGI: a middleware that runs the application in another task would lose the tenant on the way (Starlette's
BaseHTTPMiddleware does).
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

import structlog
from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send
from uuid_utils import uuid7 as fast_uuid7

from tenantry._admission import admit, check_residency
from tenantry._context import Binding
from tenantry._directory import TenantDirectory
from tenantry._errors import InvalidRequest, TenantMismatch, TenantryError, Unavailable
from tenantry._tenant import Operation, Tenant
from tenantry._tracing import is_tracing
from tenantry.http._exchange import HttpExchange, ResponseCut, WebSocketExchange
from tenantry.http._limiting import OPERATION_KEY, RequestLimiting
from tenantry.http._metering import RequestMetering
from tenantry.http._metrics import RequestMetrics
from tenantry.http._problems import problem
from tenantry.http._routes import RouteRules
from tenantry.http._service import OPERATIONAL_PATHS
from tenantry.http._tracing import server_span
from tenantry.http._watch import RECHECK_SECONDS, Watch
from tenantry.identity._identify import CredentialConflict, Identifier, Identity
from tenantry.identity._principal import Principal, PrincipalKind
from tenantry.identity._principal import Scope as Granted

log = structlog.get_logger(__name__)

REFUSALS = Counter("requests_refused_total", "Requests that were refused before any route", ["service", "type"])

IDENTITY_KEY: Final = "tenantry.identity"
"""Where the middleware leaves the `Identity` of a request in its ASGI scope."""

_REQUEST_ID_HEADER: Final = b"x-request-id"
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
_TRACEPARENT_HEADER: Final = b"traceparent"
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII
)
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# What no honest client does: it is logged for whoever watches over the system.
_SUSPICIOUS: Final = (TenantMismatch, CredentialConflict)

StaleWrites = Literal["privileged", "all", "none"]
"""Which writes are refused while the local state is older than it may be."""


class StateStale(Unavailable):
    """What is known of tenants and credentials here is too old for what the request wants to do."""

    type = "state-stale"
    title = "The service has not heard of changes for too long"


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
        limiting: RequestLimiting | None = None,
        recheck_seconds: float = RECHECK_SECONDS,
        staleness: Callable[[], float] = lambda: 0.0,
        max_staleness: float = float("inf"),
        stale_writes: StaleWrites = "privileged",
        region: str | None = None,
        top_tenants: int = 0,
    ) -> None:
        """`public` are routes that need no credential, beside health, metrics and docs.

        `operations` say what a route is for the tenant's status (`{"POST /v1/events": Operation.INGEST}`; None is not
        checked); by default GET, HEAD and OPTIONS read and everything else writes. Both are written as `RouteRules`
        takes them. In an `administrative` service the tenants are what operators and services work on, so no status
        of a tenant stops those; it stops the tenant's own credentials as everywhere.

        `recheck_seconds` is how soon a stream ends after its caller has lost the right to it. `staleness` tells how old
        the local state may be; beyond `max_staleness` seconds reads go on and `stale_writes` are refused. Tenants that
        are pinned to another `region` are refused. `top_tenants` have metrics of their own.
        """
        self._app = app
        self._directory = directory
        self._service = service
        self._identifier = identifier
        self._public = RouteRules(dict.fromkeys((*OPERATIONAL_PATHS, *public), True))
        self._operations = RouteRules(operations or {})
        self._administrative = administrative
        self._metrics = RequestMetrics(service, top_tenants)
        self._metering = metering
        self._limiting = limiting
        self._recheck_seconds = recheck_seconds
        self._staleness = staleness
        self._max_staleness = max_staleness
        self._stale_writes = stale_writes
        self._region = region

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, traceparent = _find_ids(scope["headers"])
        exchange = HttpExchange(scope, receive, send, self._metrics, request_id, self._recheck_seconds)
        binding = Binding(request_id, traceparent)
        try:
            if is_tracing() and scope["path"] not in OPERATIONAL_PATHS:
                with server_span(exchange, traceparent):
                    await self._answer(exchange, binding, receive)
            else:
                await self._answer(exchange, binding, receive)
        finally:
            binding.release()

    async def _answer(self, exchange: HttpExchange, binding: Binding, receive: Receive) -> None:
        scope = exchange.scope
        try:
            scope = exchange.scope = self._identifier.route(scope)
            if self._public.find(scope["method"], scope["path"], False):
                self._check_public_host(scope)
            else:
                principal, tenant = await self.readmit(scope) if self._identifier.resolves else self.admit(scope)
                binding.bind(principal, tenant)
                if tenant is not None:
                    await self._let_in(scope, exchange, tenant)
                exchange.watch_for(self.admit, self.readmit)
            _check_text(scope)
            await self._app(scope, exchange.receive if exchange.metered else receive, exchange.send)
        except TenantryError as error:
            # Raised before the application was called, or by a middleware between this one and its error handlers.
            if exchange.started:
                raise
            self._note(error, scope)
            await problem(error, scope["path"])(scope, receive, exchange.send)
        except asyncio.CancelledError:
            refusal = exchange.refusal()
            if refusal is None:
                raise
            await exchange.end(refusal)
        except Exception:
            if not exchange.cut:
                exchange.status = 500  # what the outermost error handler answers
                raise
        finally:
            if not exchange.finished:
                exchange.abandon()
            exchange.leave()

    async def _let_in(self, scope: Scope, exchange: HttpExchange, tenant: Tenant) -> None:
        exchange.tenant = tenant
        if self._limiting is not None:
            exchange.admitted(await self._limiting.admit(scope, tenant))
        metering = self._metering
        if metering is not None:
            metering.check()
            exchange.meter(metering)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = Watch(self.readmit, scope, self._recheck_seconds, asyncio.current_task())
        exchange = WebSocketExchange(scope, send, watch, self._recheck_seconds)
        binding = Binding(*_find_ids(scope["headers"]))
        try:
            scope = exchange.scope = watch.scope = self._identifier.route(scope)
            if self._public.find("GET", scope["path"], False):
                self._check_public_host(scope)
            else:
                principal, tenant = await self.readmit(scope)
                binding.bind(principal, tenant)
                exchange.recheck = self.admit
                if self._limiting is not None and tenant is not None:
                    exchange.admitted(await self._limiting.admit(scope, tenant))
                    receive = self._limiting.received(scope, receive, tenant)
            await self._app(scope, receive, exchange.send)
        except TenantryError as error:
            self._note(error, scope)
            await exchange.close(error)
        except ResponseCut:
            pass
        except asyncio.CancelledError:
            refusal = watch.taken_for_cancellation()
            if refusal is None:
                raise
            await exchange.end(refusal)
        finally:
            watch.stop()
            exchange.leave()
            binding.release()

    def admit(self, scope: Scope) -> Identity:
        """Who asks and for which tenant, once that tenant may do what the request does. Leaves it in the scope too.

        Raises the `TenantryError` that refuses the request.
        """
        if not self._directory.ready:
            raise Unavailable("The tenants are not known yet; the service has just started.")
        identity = self._identifier.identify(scope)
        scope[IDENTITY_KEY] = identity
        principal, tenant = identity
        method = scope.get("method", "GET")
        if method not in _READS:
            self._check_staleness(principal)
        if tenant is not None and not (self._administrative and principal.acts_for_any_tenant):
            check_residency(tenant, self._region)
            self._check_status(method, scope, principal, tenant)
        return identity

    async def readmit(self, scope: Scope) -> Identity:
        """As `admit`, after the company's own resolvers have been asked (again)."""
        if self._identifier.resolves:
            await self._identifier.resolve(scope)
        return self.admit(scope)

    def _check_status(self, method: str, scope: Scope, principal: Principal, tenant: Tenant) -> None:
        by_method = Operation.READ if method in _READS else Operation.WRITE
        operation = self._operations.find(method, scope["path"], by_method)
        if operation is Operation.INGEST and (principal.acts_for_any_tenant or principal.kind is PrincipalKind.SERVICE):
            operation = Operation.SERVICE_INGEST
        if operation is not None:
            admit(tenant, operation)
        scope[OPERATION_KEY] = operation or by_method

    def _check_staleness(self, principal: Principal) -> None:
        if self._stale_writes == "none" or (self._stale_writes == "privileged" and not _is_privileged(principal)):
            return
        if self._staleness() > self._max_staleness:
            raise StateStale("What is known here of tenants and credentials is too old for this; try again.")

    def _check_public_host(self, scope: Scope) -> None:
        # Probes come by address; everything else by a name that is ours.
        if scope["path"] not in OPERATIONAL_PATHS:
            self._identifier.check_host(scope)

    def _note(self, error: TenantryError, scope: Scope) -> None:
        REFUSALS.labels(self._service, error.type).inc()
        if isinstance(error, _SUSPICIOUS):
            client = scope.get("client")
            log.warning("request_refused", type=error.type, path=_resource(scope["path"]), client=client and client[0])


def _is_privileged(principal: Principal) -> bool:
    return principal.kind is PrincipalKind.SUPPORT or not principal.scopes.isdisjoint(
        (Granted.PLATFORM, Granted.TENANT_ADMIN)
    )


def _resource(path: str) -> str:
    """The beginning of a path, such as `/v1/documents`; what follows are ids and names that tenants have chosen."""
    return "/".join(path.split("/", 3)[:3])


def _check_text(scope: Scope) -> None:
    """Refuses the one character that no database stores, in the one place that every path and query comes through."""
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise InvalidRequest("The address contains the character NUL.")


def _find_ids(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str | None]:
    """The caller's request id where it has a harmless form, else a new one; and its place in a trace (W3C)."""
    request_id = traceparent = None
    for name, value in headers:
        if name == _REQUEST_ID_HEADER:
            if _REQUEST_ID.fullmatch(value):
                request_id = value.decode()
        elif name == _TRACEPARENT_HEADER and _TRACEPARENT.fullmatch(value):
            traceparent = value.decode()
    return request_id or str(fast_uuid7()), traceparent

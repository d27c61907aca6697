"""The current tenant: a context variable without a default.

Asking without a tenant raises; there is no "no tenant means all tenants" anywhere in the library.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass

from tenantry._errors import NoTenant, TenantAlreadyBound
from tenantry._tenant import Tenant
from tenantry.identity._principal import Principal

_current: ContextVar[Tenant] = ContextVar("tenantry_current_tenant")
_request_id: ContextVar[str | None] = ContextVar("tenantry_request_id", default=None)
_traceparent: ContextVar[str | None] = ContextVar("tenantry_traceparent", default=None)
_caller: ContextVar[Principal | None] = ContextVar("tenantry_caller", default=None)


@dataclass(frozen=True, slots=True)
class TenantContext:
    """What a task works for, in one value: to hand on to another task, process or service."""

    tenant: Tenant
    principal: Principal | None
    """Who asked for it; None for work of the system's own."""
    request_id: str | None
    traceparent: str | None
    """The caller's place in a trace (W3C Trace Context); None where it sent none."""


class Binding:
    """What one request has set for its task, until it is released."""

    __slots__ = ("_caller", "_request_id", "_tenant", "_traceparent")

    def __init__(self, request_id: str, traceparent: str | None) -> None:
        self._request_id = _request_id.set(request_id)
        self._traceparent = None if traceparent is None else _traceparent.set(traceparent)
        self._caller: Token[Principal | None] | None = None
        self._tenant: Token[Tenant] | None = None

    def bind(self, principal: Principal, tenant: Tenant | None) -> None:
        """From here on the task works for this caller, and for the tenant where there is one."""
        self._caller = _caller.set(principal)
        if tenant is not None:
            self._tenant = _current.set(tenant)

    def release(self) -> None:
        if self._tenant is not None:
            _current.reset(self._tenant)
        if self._caller is not None:
            _caller.reset(self._caller)
        if self._traceparent is not None:
            _traceparent.reset(self._traceparent)
        _request_id.reset(self._request_id)


def current_tenant() -> Tenant:
    """The tenant that this task works for. Raises `NoTenant` where none is set."""
    try:
        return _current.get()
    except LookupError:
        raise NoTenant from None


def current_tenant_or_none() -> Tenant | None:
    """For logs and metrics, which exist outside a tenant too. Never for data access."""
    return _current.get(None)


def current_request_id() -> str | None:
    """The id of the request that this task serves, for logs and outgoing calls; None outside a request."""
    return _request_id.get()


def current_context() -> TenantContext:
    """Tenant, caller, request and trace of this task. Raises `NoTenant` where no tenant is set."""
    return TenantContext(current_tenant(), _caller.get(), _request_id.get(), _traceparent.get())


def current_traceparent() -> str | None:
    """Where in a trace the caller of this request stands (W3C Trace Context), for outgoing calls and events."""
    return _traceparent.get()


@contextmanager
def tenant_scope(tenant: Tenant) -> Iterator[Tenant]:
    """Work for `tenant` inside the block. Raises `TenantAlreadyBound` where another tenant is set."""
    bound = _current.get(None)
    if bound is not None and bound.id != tenant.id:
        raise TenantAlreadyBound("a task works for one tenant; leave its scope before entering another's")
    token = _current.set(tenant)
    try:
        yield tenant
    finally:
        _current.reset(token)

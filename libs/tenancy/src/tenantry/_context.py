"""The current tenant: a context variable without a default.

Asking without a tenant raises; there is no "no tenant means all tenants" anywhere in the library.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tenantry._errors import NoTenant, TenantAlreadyBound
from tenantry._tenant import Tenant

_current: ContextVar[Tenant] = ContextVar("tenantry_current_tenant")
_request_id: ContextVar[str | None] = ContextVar("tenantry_request_id", default=None)


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

"""The parts of an HTTP service: tenancy middleware, problems, pages, versions, idempotency, limits."""

from tenantry.http._body_limit import DEFAULT_MAX_BODY_BYTES, BodyLimitMiddleware
from tenantry.http._calls import ServiceTransport
from tenantry.http._direct import DirectRoute
from tenantry.http._idempotency import IdempotentRoute, delete_expired_idempotency_keys, idempotent
from tenantry.http._limiting import Cost, RequestLimiting, by_length
from tenantry.http._metering import DEFAULT_EVENT_TYPE, RequestMetering
from tenantry.http._metrics import RequestMetrics
from tenantry.http._middleware import IDENTITY_KEY, StaleWrites, StateStale, TenancyMiddleware
from tenantry.http._pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from tenantry.http._problems import PROBLEM_MEDIA_TYPE, MalformedJson, install_problem_handlers, problem
from tenantry.http._routes import RouteRules, route_template
from tenantry.http._scopes import CurrentPrincipal, current_principal, require_scope
from tenantry.http._service import OPERATIONAL_PATHS, ReadinessCheck, add_operational_routes, service_app
from tenantry.http._versions import ABSENT, ExpectedVersion, etag, expected_version, if_match
from tenantry.http._watch import RECHECK_SECONDS

__all__ = [
    "ABSENT",
    "DEFAULT_EVENT_TYPE",
    "DEFAULT_MAX_BODY_BYTES",
    "IDENTITY_KEY",
    "OPERATIONAL_PATHS",
    "PROBLEM_MEDIA_TYPE",
    "RECHECK_SECONDS",
    "BodyLimitMiddleware",
    "Cost",
    "CurrentPrincipal",
    "Cursor",
    "DirectRoute",
    "ExpectedVersion",
    "IdempotentRoute",
    "Limit",
    "MalformedJson",
    "Page",
    "ReadinessCheck",
    "RequestLimiting",
    "RequestMetering",
    "RequestMetrics",
    "RouteRules",
    "ServiceTransport",
    "StaleWrites",
    "StateStale",
    "TenancyMiddleware",
    "add_operational_routes",
    "by_length",
    "current_principal",
    "decode_cursor",
    "delete_expired_idempotency_keys",
    "encode_cursor",
    "etag",
    "expected_version",
    "idempotent",
    "if_match",
    "install_problem_handlers",
    "problem",
    "require_scope",
    "route_template",
    "service_app",
]

"""The parts of an HTTP service: tenancy middleware, problems, pages, versions, limits."""

from tenantry.http._body_limit import DEFAULT_MAX_BODY_BYTES, BodyLimitMiddleware
from tenantry.http._metrics import RequestMetrics
from tenantry.http._pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from tenantry.http._problems import PROBLEM_MEDIA_TYPE, MalformedJson, install_problem_handlers, problem
from tenantry.http._routes import RouteRules
from tenantry.http._service import OPERATIONAL_PATHS, service_app
from tenantry.http._versions import ExpectedVersion, etag, expected_version, if_match

__all__ = [
    "DEFAULT_MAX_BODY_BYTES",
    "OPERATIONAL_PATHS",
    "PROBLEM_MEDIA_TYPE",
    "BodyLimitMiddleware",
    "Cursor",
    "ExpectedVersion",
    "Limit",
    "MalformedJson",
    "Page",
    "RequestMetrics",
    "RouteRules",
    "decode_cursor",
    "encode_cursor",
    "etag",
    "expected_version",
    "if_match",
    "install_problem_handlers",
    "problem",
    "service_app",
]

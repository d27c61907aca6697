"""Errors on the wire: `application/problem+json` (RFC 9457)."""

import contextlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tenantry._errors import FieldError, InvalidRequest, MalformedRequest, TenantryError, Unavailable
from tenantry.database._errors import MissingUrl
from tenantry.database._outage import find_outage
from tenantry.http._routes import route_template

log = structlog.get_logger(__name__)

CLIENT_GONE: Final = 499
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"

_encode: Final = msgspec.json.Encoder().encode


class MalformedJson(MalformedRequest):
    """The body is not JSON at all; a body that is JSON of the wrong shape is an `InvalidRequest`."""

    type = "malformed-json"
    title = "The body is not JSON"


def install_problem_handlers(app: FastAPI) -> None:
    """Renders every error of `app` as a problem: expected ones as they say, all others as a bare 500 that is logged."""
    app.add_exception_handler(TenantryError, _on_tenantry_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    for possible_outage in (DBAPIError, PoolTimeoutError, asyncpg.PostgresError, OSError, MissingUrl):
        app.add_exception_handler(possible_outage, _on_possible_outage)
    app.add_exception_handler(Exception, _on_unexpected_error)


def problem(error: TenantryError, instance: str) -> Response:
    """The response to an expected error. `instance` is the path of the request."""
    document: dict[str, Any] = {
        **error.members,
        "type": error.type,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
    }
    if error.errors:
        document["errors"] = error.errors
    return Response(_encode(document), error.status, error.headers, PROBLEM_MEDIA_TYPE)


async def _on_tenantry_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, TenantryError) or request.scope["type"] != "http":
        raise error  # a WebSocket is closed by the middleware
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:  # a defect; a 503 is counted, not logged for each request
        log.error("request_failed", type=error.type, detail=error.detail)
    return problem(error, request.url.path)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):  # pragma: no cover - what it is registered for
        raise error
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        position = next(fault["loc"][-1] for fault in faults if fault["type"] == "json_invalid")
        return problem(
            MalformedJson(f"The body is not JSON: it cannot be read at character {position}."), request.url.path
        )
    return problem(
        InvalidRequest("The request does not have the expected shape; see `errors`.", errors=_field_errors(faults)),
        request.url.path,
    )


def _field_errors(faults: Sequence[Any]) -> list[FieldError]:
    # What was sent is not repeated: it may be a secret, and it may be large.
    return [FieldError(loc=list(fault["loc"]), msg=str(fault["msg"])) for fault in faults]


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):  # pragma: no cover - what it is registered for
        raise error
    # FastAPI turns whatever reading the body raises into a 400; ours says more.
    if isinstance(error.__cause__, TenantryError):
        return problem(error.__cause__, request.url.path)
    if isinstance(error.__cause__, (ValueError, RecursionError)):  # not UTF-8, nested without end, a number like a book
        return problem(MalformedJson("The body is not JSON that can be read."), request.url.path)
    if error.status_code < HTTPStatus.OK or error.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
        return Response(status_code=error.status_code, headers=error.headers)
    return problem(_as_tenantry_error(error), request.url.path)


def _as_tenantry_error(error: HTTPException) -> TenantryError:
    title = str(error.status_code)
    with contextlib.suppress(ValueError):
        title = HTTPStatus(error.status_code).phrase
    rendered = TenantryError(str(error.detail), headers=error.headers)
    # On the instance: the statuses of routing (404, 405) have no class of their own.
    vars(rendered).update(status=error.status_code, type=title.lower().replace(" ", "-"), title=title)
    return rendered


async def _on_client_gone(_: Request, __: Exception) -> Response:
    # Nobody reads it; it is the status that the request is counted under.
    return Response(status_code=CLIENT_GONE)


async def _on_possible_outage(request: Request, error: Exception) -> Response:
    outage = find_outage(error)
    if outage is None:
        return await _on_unexpected_error(request, error)
    log.warning("database_away", method=request.method, route=route_template(request.scope), error=outage)
    return problem(Unavailable("The database cannot do this now; try again.", retry_after=1), request.url.path)


async def _on_unexpected_error(request: Request, error: Exception) -> Response:
    log.error("unexpected_error", method=request.method, route=route_template(request.scope), exc_info=error)
    return problem(
        TenantryError("Something went wrong on our side; it has been logged."),
        request.url.path,
    )

"""The part of an HTTP service that is the same everywhere: health, readiness, metrics, docs and problems."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tenantry._errors import Unavailable
from tenantry.http._body_limit import DEFAULT_MAX_BODY_BYTES, BodyLimitMiddleware
from tenantry.http._openapi import document_problems
from tenantry.http._problems import install_problem_handlers

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
ReadinessCheck = Callable[[], bool | Awaitable[bool]]

# FastAPI's own would stand beside the middleware's metrics and spans, with what callers chose in its attributes.
_NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}

# What answers without a credential in every service.
OPERATIONAL_PATHS: Final = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
)


def service_app(
    *,
    title: str,
    service: str,
    lifespan: Lifespan | None = None,
    ready: Mapping[str, ReadinessCheck] | None = None,
    description: str = "",
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    body_limits: Mapping[str, int] | None = None,
) -> FastAPI:
    """An application with `/healthz`, `/readyz`, `/metrics`, `/docs`, problems for errors and a bound on bodies.

    `/readyz` is 200 while every check of `ready` holds, else a 503 that names those that do not. More checks may be
    added to `app.state.readiness` later, by their names. `body_limits` are other bounds for single routes, as in
    `{"PUT /v1/files/{name}": 32 * 1024 * 1024}`.
    """
    app = FastAPI(
        title=title,
        description=description,
        version=_version(service),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # a redirect repeats the Host header, which anybody can make up
        telemetry=_NO_TELEMETRY,
    )
    add_operational_routes(app, ready)
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_body_bytes, overrides=dict(body_limits or {}))
    return app


def add_operational_routes(app: FastAPI, ready: Mapping[str, ReadinessCheck] | None = None) -> None:
    """Adds problems for errors, `/healthz`, `/readyz` and `/metrics`, or only the checks where they are there."""
    if hasattr(app.state, "readiness"):
        app.state.readiness.update(ready or {})
        return
    app.state.readiness = dict(ready or {})
    install_problem_handlers(app)
    document_problems(app)
    app.add_api_route("/healthz", _healthz, include_in_schema=False, response_class=Response)
    app.add_api_route("/readyz", _readyz, include_in_schema=False, response_class=Response)
    app.add_api_route("/metrics", _metrics, include_in_schema=False, response_class=Response)


async def _healthz() -> Response:
    return JSONResponse({"status": "ok"})


async def _readyz(request: Request) -> Response:
    checks: dict[str, ReadinessCheck] = request.app.state.readiness
    failing = [name for name, check in checks.items() if not await _holds(check)]
    if failing:
        raise Unavailable(f"Not ready: {', '.join(sorted(failing))}.")
    return JSONResponse({"status": "ready", "checks": sorted(checks)})


async def _holds(check: ReadinessCheck) -> bool:
    outcome = check()
    return await outcome if inspect.isawaitable(outcome) else outcome


async def _metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _version(service: str) -> str:
    try:
        return version(f"{service}-service")
    except PackageNotFoundError:
        return version("tenantry")

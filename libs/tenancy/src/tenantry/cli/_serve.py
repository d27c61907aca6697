"""Running roles: one event loop, one task a role, stopped together."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from tenantry._errors import StartupRefused
from tenantry.cli._protocol import BoundedHttp
from tenantry.cli._roles import Role
from tenantry.http import add_operational_routes

log = structlog.get_logger(__name__)

DRAIN_SECONDS: Final = 5
_BACKLOG: Final = 2048


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the roles of a process are stopped in one place."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(app: Starlette, *, host: str, port: int) -> None:
    """Serve `app` until cancelled; requests under way get `DRAIN_SECONDS` to end, then the lifespan ends.

    The lifespan runs here and not in uvicorn, so that what it raises is raised to the caller. Raises `StartupRefused`
    where the address cannot be listened on.
    """
    listener = _listen(host, port)
    with contextlib.closing(listener):
        async with app.router.lifespan_context(app) as state:
            server = _Server(
                uvicorn.Config(
                    _WithState(app, dict(state or {})),
                    access_log=False,
                    backlog=_BACKLOG,
                    http=BoundedHttp,
                    lifespan="off",
                    log_config=None,
                    proxy_headers=False,
                    server_header=False,
                    timeout_graceful_shutdown=DRAIN_SECONDS,
                )
            )
            _settle()
            log.info("http_serving", host=host, port=port)
            await _serve(server, listener)


def metrics_role(service: str, host: str, port: int) -> Role:
    """What a process shows of itself beside its roles: `/metrics`, `/healthz` and `/readyz`, without a credential.

    The processes that serve an API have the same there; this is for workers and relays, and for both in one.
    """

    async def run() -> None:
        app = FastAPI(openapi_url=None)
        add_operational_routes(app)
        await serve_http(app, host=host, port=port)

    return Role("metrics", service, "Metrics and health of this process", run)


async def run_roles(roles: Sequence[Role]) -> None:
    """Run `roles` until SIGTERM or SIGINT, or until one of them ends, which ends them all.

    The log lines of a role carry its `role` and `service`. Roles are cancelled and awaited. Returns when all ended
    because they were told to; raises the first error of a role, and `RuntimeError` for one that returned by itself.
    """
    _settle()
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stop = asyncio.create_task(stopping.wait())
    tasks = {asyncio.create_task(_run(role)): role for role in roles}
    await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
    ended = [role.name for task, role in tasks.items() if task.done()]
    for task in (*tasks, stop):
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    if ended and not stopping.is_set():
        raise RuntimeError(f"ended by itself: {', '.join(ended)}")


async def _run(role: Role) -> None:
    # In the context of the role's own task, which whatever it starts inherits.
    structlog.contextvars.bind_contextvars(service=role.service, role=role.name)
    await role.run()


def _settle() -> None:
    """Takes what is there by now, which stays until the end, out of the garbage collector's sight.

    Modules, routes and tenants are some 200,000 objects. To look at all of them takes 50 ms or more, every few seconds,
    in which no request is served: that is what the slowest of a hundred requests would be waiting for.
    """
    gc.collect()
    gc.freeze()


class _WithState:
    """Hands the lifespan's state to every request, as a server does that runs the lifespan itself."""

    def __init__(self, app: Starlette, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = self._state.copy()
        await self._app(scope, receive, send)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise StartupRefused(f"cannot listen on {host}:{port}: {error}") from error


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise

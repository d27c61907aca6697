"""Running roles: one event loop, one task a role, stopped together."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp

from tenantry.cli._roles import Role

DRAIN_SECONDS = 10


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the roles of a process are stopped in one place."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(app: ASGIApp, *, host: str, port: int) -> None:
    """Serve `app` until cancelled; requests under way get `DRAIN_SECONDS` to end."""
    server = _Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            access_log=False,
            log_config=None,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
    if not server.started:
        raise RuntimeError(f"could not serve on {host}:{port}")


async def run_roles(roles: Sequence[Role]) -> None:
    """Run `roles` until SIGTERM or SIGINT, or until one of them ends, which ends them all. Raises what ended it."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.ensure_future(role.run()) for role in roles]
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, stop):
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome

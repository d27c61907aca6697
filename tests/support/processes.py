"""Roles of the services as processes of their own."""

import socket
import sys

import httpx

SERVE = (sys.executable, "-c", "from tenantry.cli import main; main()", "serve", "--role")
"""The command that a role's name completes, whatever stands on the path."""


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def is_ready(client: httpx.AsyncClient) -> bool:
    """Whether the process at the client's address is there and says that it is ready."""
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False

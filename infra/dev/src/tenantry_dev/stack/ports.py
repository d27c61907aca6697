"""Which TCP port a server listens on: fixed by the environment, else the one it had, else the default or the next."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Collection

import psutil

from tenantry_dev.stack.errors import StackError

HOST = "127.0.0.1"
_ATTEMPTS = 200


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port in TIME_WAIT is free, one that is listened on is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def any_free_port() -> int:
    """A port of the system's choice: for throw-away servers, where nobody needs to know it beforehand."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def choose_port(variable: str, default: int, *, previous: int | None = None, taken: Collection[int] = ()) -> int:
    """The port named by the environment variable, which must then be free; else the previous one, the default or the
    next free one after it. `taken` are ports promised to others of this run.
    """
    fixed = os.environ.get(variable)
    if fixed:
        if not fixed.isdecimal() or not 0 < int(fixed) < 65536:
            raise StackError(f"{variable}={fixed} is not a port number.")
        if not is_free(int(fixed)):
            raise StackError(f"{variable}={fixed}: the port is in use{_by_whom(int(fixed))}. Free it or name another.")
        return int(fixed)
    for port in itertools.chain((previous or default,), range(default, default + _ATTEMPTS)):
        if port not in taken and is_free(port):
            return port
    raise StackError(f"No free port in {default} to {default + _ATTEMPTS}. Set {variable} to one that is free.")


def _by_whom(port: int) -> str:
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        owners = [c.pid for c in listening if c.laddr and c.laddr.port == port]
        names = [f"{psutil.Process(pid).name()}, process {pid}" for pid in owners if pid]
    except psutil.Error:
        return ""
    return f" (by {names[0]})" if names else ""

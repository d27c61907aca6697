"""Which TCP port a server listens on: fixed by the environment, else the one it had, else the default or the next."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

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


class Leases:
    """Ports promised to servers that do not listen yet.

    Two systems that start at the same moment would both find a port free and one would later answer for the other.
    A lease is a lock on a file: it ends with the process that holds it, however that ends.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.gettempdir()) / f"tenantry-ports-{os.getuid()}"
        self._files: list[IO[bytes]] = []

    def take(self, port: int) -> bool:
        """Whether the port is now ours: nobody listens on it and nobody else holds a lease of it."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        file = (self._directory / str(port)).open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        if not is_free(port):
            file.close()
            return False
        self._files.append(file)
        return True

    def close(self) -> None:
        while self._files:
            self._files.pop().close()


def choose_port(leases: Leases, variable: str, default: int, *, previous: int | None = None) -> int:
    """A port, leased: the one named by the environment variable, else the previous one, the default or the next free
    one after it. Raises StackError when the named one is in use, or when there is none.
    """
    fixed = os.environ.get(variable)
    if fixed:
        if not fixed.isdecimal() or not 0 < int(fixed) < 65536:
            raise StackError(f"{variable}={fixed} is not a port number.")
        if not leases.take(int(fixed)):
            raise StackError(f"{variable}={fixed}: the port is in use{_by_whom(int(fixed))}. Free it or name another.")
        return int(fixed)
    for port in itertools.chain((previous or default,), range(default, default + _ATTEMPTS)):
        if leases.take(port):
            return port
    raise StackError(f"No free port in {default} to {default + _ATTEMPTS}. Set {variable} to one that is free.")


def listens(pid: int | None, port: int) -> bool:
    """Whether it is this process that listens on the port, and no other program that was quicker."""
    if pid is None:
        return False
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def _by_whom(port: int) -> str:
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        owners = [c.pid for c in listening if c.laddr and c.laddr.port == port]
        names = [f"{psutil.Process(pid).name()}, process {pid}" for pid in owners if pid]
    except psutil.Error:
        return ""
    return f" (by {names[0]})" if names else ""

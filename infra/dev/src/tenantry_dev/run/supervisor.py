"""Processes under supervisord: started in order, restarted with growing pauses when they crash, stopped together.

Each process dies with supervisord and supervisord dies with us (see stack/guard.py), so that a SIGKILL of any of them
leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import xmlrpc.client  # only between processes of one account, over a socket of ours  # nosec B411
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tenantry_dev.home import Home
from tenantry_dev.stack import StackError
from tenantry_dev.stack.process import PidFile, end, failure, guarded, launch, start, stop, wait_until

_STOP_SECONDS = 15
_START_SECONDS = 20.0
_CALL_SECONDS = 30.0
_LIVING = frozenset({"STARTING", "RUNNING", "BACKOFF", "STOPPING"})


@dataclass(frozen=True)
class Program:
    """One supervised process. Those with a lower `rank` are started first and stopped last."""

    name: str
    command: Sequence[str]
    rank: int
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    account: str | None = None
    stop_signal: int = signal.SIGTERM
    # Without a supervisor nobody would insist, so it is not a request; what is lost then, a crash must not lose either.
    death_signal: int = signal.SIGKILL

    def section(self, home: Home) -> str:
        """Its part of supervisord's configuration; writes what guard.py reads beside it."""
        launched = home.run / f"{self.name}.launch.json"
        launched.touch(mode=0o600)
        launched.write_text(
            launch(self.command, account=self.account, environment=self.environment, death_signal=self.death_signal),
            encoding="utf-8",
        )
        options = {
            "command": shlex.join(guarded(launched)),
            "directory": self.directory or home.run,
            "autostart": "false",
            "autorestart": "true",
            # A process that lives a second has started; one that does not is retried after 1 s, 2 s, 3 s and so on.
            "startsecs": "1",
            "startretries": "1000000",
            "stopsignal": signal.Signals(self.stop_signal).name.removeprefix("SIG"),
            "stopwaitsecs": _STOP_SECONDS,
            "priority": self.rank,
            "redirect_stderr": "true",
            "stdout_logfile": home.logs / f"{self.name}.log",
            "stdout_logfile_maxbytes": "50MB",
            "stdout_logfile_backups": "1",
        }
        return _section(f"program:{self.name}", options)


class Supervisor:
    """supervisord and its programs. Not safe to share between threads."""

    def __init__(self, home: Home, programs: Sequence[Program]) -> None:
        self._home = home
        self._programs = {program.name: program for program in programs}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self._home.logs / "supervisor.log"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts supervisord with no program running; whatever an earlier run left is ended first."""
        end_leftovers(self._home)
        configuration = self._home.run / "supervisord.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration(), encoding="utf-8")
        self._home.socket.unlink(missing_ok=True)
        self._process = process = start(
            [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", f"--configuration={configuration}"],
            log=self._home.logs / "supervisord.out",
            directory=self._home.run,
        )
        _pid_file(self._home).write(process.pid)
        if not wait_until(self._answers, alive=lambda: process.poll() is None, within=_START_SECONDS):
            stop(process)
            raise failure("supervisord", self._home.logs / "supervisord.out")

    def add(self, programs: Sequence[Program]) -> None:
        """Makes more programs known; they start with run()."""
        self._programs.update({program.name: program for program in programs})
        (self._home.run / "supervisord.conf").write_text(self._configuration(), encoding="utf-8")
        self._call("reloadConfig")
        for program in programs:
            self._call("addProcessGroup", program.name)

    def run(self, *names: str) -> None:
        """Starts programs without waiting for them to be useful."""
        for name in names:
            self._call("startProcess", name, False)

    def states(self) -> dict[str, str]:
        """State of every program: STOPPED, STARTING, RUNNING, BACKOFF, EXITED, FATAL."""
        return {info["name"]: info["statename"] for info in self._call("getAllProcessInfo")}

    def pids(self) -> dict[str, int]:
        """Process ids of the programs that run now."""
        return {info["name"]: info["pid"] for info in self._call("getAllProcessInfo") if info["pid"]}

    def stop(self) -> None:
        """Stops the programs, the highest rank first, and supervisord. Returns when all are gone."""
        if self._process is not None:
            # supervisord by itself would stop one program after the other.
            with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Fault):
                for rank in sorted({program.rank for program in self._programs.values()}, reverse=True):
                    self._stop_together([name for name, program in self._programs.items() if program.rank == rank])
            stop(self._process, within=4 * _STOP_SECONDS)
            self._process = None
        _pid_file(self._home).remove()
        self._home.socket.unlink(missing_ok=True)

    def _stop_together(self, names: Sequence[str]) -> None:
        states = self.states()
        for name in names:
            if states.get(name) in _LIVING:
                self._call("stopProcess", name, False)
        # supervisord kills those that do not stop in time.
        wait_until(
            lambda: not any(state in _LIVING and name in names for name, state in self.states().items()),
            alive=lambda: self.alive,
            within=_STOP_SECONDS + 5,
        )

    def _answers(self) -> bool:
        try:
            self._call("getState")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _call(self, method: str, *arguments: Any) -> Any:
        with xmlrpc.client.ServerProxy("http://supervisor", transport=_SocketTransport(self._home.socket)) as server:
            return getattr(server.supervisor, method)(*arguments)

    def _configuration(self) -> str:
        home = self._home
        daemon = {
            "logfile": self.log,
            "logfile_maxbytes": "10MB",
            "logfile_backups": "1",
            "pidfile": home.run / "supervisord.pid",
            "directory": home.run,
            "childlogdir": home.logs,
            "identifier": "tenantry",
        }
        if os.geteuid() == 0:
            daemon["user"] = "root"  # said, so that it does not warn of it
        factory = {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"}
        sections = [
            _section("supervisord", daemon),
            _section("unix_http_server", {"file": home.socket, "chmod": "0600"}),
            _section("rpcinterface:supervisor", factory),
        ]
        return "\n".join([*sections, *(program.section(home) for program in self._programs.values())])


def end_leftovers(home: Home) -> bool:
    """Ends a supervisord that outlived its parent, and with it its programs. Whether there was one."""
    left = _pid_file(home).process()
    if left is None:
        return False
    children = left.children(recursive=True)
    # It was told to stop when its parent died and may be at it: its programs get their time.
    end(left, within=4 * _STOP_SECONDS)
    _, deaf = psutil.wait_procs(children, timeout=_STOP_SECONDS)
    for process in deaf:
        end(process, with_signal=signal.SIGKILL)
    _pid_file(home).remove()
    return True


def _pid_file(home: Home) -> PidFile:
    return PidFile(home.run / "supervisor.json")


class _SocketTransport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._opened: _SocketConnection | None = None

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - the socket is the address
        if self._opened is None:
            self._opened = _SocketConnection(self._path)
        return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=_CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CALL_SECONDS)
        self.sock.connect(str(self._path))


def _section(name: str, options: Mapping[str, object]) -> str:
    """A section of supervisord's configuration, where % begins an expansion and " ;" a comment."""
    values = {option: str(value).replace("%", "%%") for option, value in options.items()}
    if any(mark in value for value in values.values() for mark in ("\n", " ;", " #")):
        raise StackError(f"The state directory cannot be used: its path holds a line break, ' ;' or ' #' ({values}).")
    return f"[{name}]\n" + "".join(f"{option}={value}\n" for option, value in values.items())

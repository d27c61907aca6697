"""Server processes: started so that they die with their parent, found again after a crash, stopped for certain."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tenantry_dev.stack import guard
from tenantry_dev.stack.errors import StackError

_LOG_TAIL_BYTES = 8_000
_LEAST_FREE_BYTES = 512 * 1024 * 1024


def launch(
    command: Sequence[str | Path],
    *,
    account: str | None = None,
    environment: Mapping[str, str] | None = None,
    parent: int = 0,
    death_signal: int = signal.SIGTERM,
) -> str:
    """What guard.py is told: the command, whom to become first, and what to be sent when the parent dies.

    `parent` 0 means whoever starts it (a supervisor), else the process id that must be the parent.
    """
    document = {
        "command": [str(word) for word in command],
        "signal": int(death_signal),
        "parent": parent,
        "account": account,
        "environment": dict(environment or {}),
    }
    return json.dumps(document)


def guarded(launched: str | Path) -> list[str]:
    """The command line that carries out launch(), given its text or a file that holds it."""
    return [sys.executable, "-I", "-S", guard.__file__, str(launched)]


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    directory: Path,
    account: str | None = None,
    death_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Starts a server in its own session (Ctrl-C does not reach it), output appended to `log`.

    The death of the *thread* that calls this is what the server notices: call it from one that stays.
    """
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own arguments
            guarded(launch(command, account=account, parent=os.getpid(), death_signal=death_signal)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], *, with_signal: int = signal.SIGTERM, within: float = 20) -> None:
    """Asks, waits, then kills. Returns when the process is gone."""
    if process.poll() is None:
        process.send_signal(with_signal)
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and all of its processes at once, as a power cut would. Returns when it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class PidFile:
    """Remembers a process by id and start time, so that a recycled id is never mistaken for it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, pid: int) -> None:
        record = {"pid": pid, "started": psutil.Process(pid).create_time()}
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(record), encoding="utf-8")
        draft.replace(self._path)

    def process(self) -> psutil.Process | None:
        """The process if it still runs, else None: also for a missing or torn file."""
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            found = psutil.Process(record["pid"])
            alive = found.is_running() and found.status() != psutil.STATUS_ZOMBIE
            # The clock's adjustments move the computed start time a little.
            same = abs(found.create_time() - record["started"]) < 1
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return found if alive and same else None

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def running_in(pid: int, *, name: str, directory: Path) -> psutil.Process | None:
    """The process of that id if it is the named program working in that directory, else None."""
    try:
        found = psutil.Process(pid)
        same = found.name() == name and Path(found.cwd()) == directory.resolve()
    except psutil.Error:
        return None
    return found if same else None


def end(process: psutil.Process, *, with_signal: int = signal.SIGTERM, within: float = 20) -> None:
    """Stops a process that is not our child. Returns when it is gone."""
    try:
        process.send_signal(with_signal)
        process.wait(within)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(within)
    except psutil.NoSuchProcess:
        return


def require_space(directory: Path, needed: int = _LEAST_FREE_BYTES) -> None:
    """Raises StackError when the file system of the directory is (nearly) full."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StackError(
            f"Only {free // 2**20} MiB are free where {directory} lies, {needed // 2**20} MiB are needed.\n"
            "Free some space, or set TENANTRY_HOME to a directory on a larger disk."
        )


def failure(name: str, log: Path) -> StackError:
    """What to tell when a server ended or did not come up: the reason if the log shows a known one, and its end."""
    tail = last_lines(log, 15)
    reason = next((text for sign, text in _KNOWN_REASONS.items() if sign.lower() in tail.lower()), "")
    return StackError(f"{name} did not start. {reason}\nThe end of {log}:\n{tail or '(empty)'}")


_KNOWN_REASONS = {
    "No space left on device": "The disk is full.",
    "Address already in use": "Another program took its port at the same moment; start again.",
    "Cannot allocate memory": "There is not enough memory.",
    "error while loading shared libraries": "A shared library is missing on this system.",
}


def last_lines(log: Path, count: int) -> str:
    """The end of a log; empty when there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-count:])


def wait_until(ready: Callable[[], bool], *, alive: Callable[[], bool], within: float) -> bool:
    """Polls until `ready()`. False as soon as `alive()` is false, or when the time is over."""
    deadline = time.monotonic() + within
    while not ready():
        if not alive() or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True

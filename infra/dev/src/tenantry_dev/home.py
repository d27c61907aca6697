"""The state directory of one embedded system: what lies where, and who may use it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenantry_dev.stack import StackError

_LONGEST_SOCKET_PATH = 90  # sun_path holds 108 bytes, and supervisord appends a process id while it binds


class Home:
    """`.tenantry` of the current directory, or where TENANTRY_HOME says. Making the object touches nothing."""

    def __init__(self, directory: Path | None = None) -> None:
        chosen = directory or Path(os.environ.get("TENANTRY_HOME") or ".tenantry")
        self.directory = chosen.expanduser().absolute()

    @property
    def logs(self) -> Path:
        return self.directory / "log"

    @property
    def run(self) -> Path:
        """What only matters while the system runs: process ids, the supervisor's configuration."""
        return self.directory / "run"

    @property
    def sample(self) -> Path:
        return self.directory / "sample"

    @property
    def operator_file(self) -> Path:
        return self.directory / "operator.json"

    @property
    def socket(self) -> Path:
        """The supervisor's. Not below the state directory where that lies too deep for a socket's address."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tenantry-{os.getuid()}-{digest}.sock"

    def create(self) -> None:
        """Makes the directories. May be repeated."""
        for directory in (self.directory, self.logs, self.run, self.sample):
            directory.mkdir(parents=True, exist_ok=True)
        # PostgreSQL's account passes through on its way to its data; it cannot list. Files with secrets are 0600.
        self.directory.chmod(0o711)
        for directory in (self.logs, self.run, self.sample):
            directory.chmod(0o700)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Held while a system runs from this directory. Raises StackError when another process holds it."""
        self.create()
        with (self.run / "lock").open("a+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise StackError(
                    f"It is running already (process {file.read().strip() or 'unknown'}, state in {self.directory}).\n"
                    "`make down` stops it; TENANTRY_HOME=<another directory> runs a second one beside it."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def holder(self) -> int | None:
        """Process id of the one inside exclusive(), None when there is none."""
        try:
            with (self.run / "lock").open("r+", encoding="ascii") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return None


def read_json(path: Path) -> dict[str, Any]:
    """The document in the file; empty when there is none."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StackError(f"{path} is damaged ({error}). `make clean` starts over.") from error
    return document


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replaces the file as a whole, readable by its owner alone: a kill leaves the old one or the new one."""
    draft = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


class Secrets:
    """Secrets of this state directory, each made on first use and kept in `secrets.json` (0600)."""

    def __init__(self, home: Home) -> None:
        self._path = home.directory / "secrets.json"
        self._secrets: dict[str, str] = read_json(self._path)

    def __getitem__(self, name: str) -> str:
        """URL-safe text of 256 random bits, the same at every start."""
        return self.make(name, lambda: secrets.token_urlsafe(32))

    def make(self, name: str, generate: Callable[[], str]) -> str:
        if name not in self._secrets:
            self._secrets[name] = generate()
            write_json(self._path, self._secrets)
        return self._secrets[name]

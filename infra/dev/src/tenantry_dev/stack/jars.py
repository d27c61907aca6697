"""Kafka's jars: named with their SHA-256 in kafka.lock, fetched once with jgo, then taken from a cache of the user's.

`kafka.lock` has a line for each jar, `group:artifact:version sha256`. A start with a full cache uses no network; a jar
that differs from its digest is never put on a class path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tenantry_dev.stack.errors import StackError

LOCK = Path(__file__).with_name("kafka.lock")
ENDPOINTS = ("org.apache.kafka:kafka_2.13:4.3.1", "org.slf4j:slf4j-simple:1.7.36")
_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_PARALLEL = 8
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, order=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    @property
    def line(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version} {self.sha256}"

    @classmethod
    def parse(cls, line: str) -> Jar:
        coordinate, sha256 = line.split()
        group, artifact, version = coordinate.split(":")
        return cls(group, artifact, version, sha256)


def locked_jars(lock: Path = LOCK) -> list[Jar]:
    return [Jar.parse(line) for line in lock.read_text(encoding="ascii").splitlines() if line and line[0] != "#"]


def cache_directory() -> Path:
    """Where jars are kept between clones: TENANTRY_CACHE, else `tenantry` below the user's cache directory."""
    chosen = os.environ.get("TENANTRY_CACHE")
    if chosen:
        return Path(chosen).absolute()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "tenantry"


def class_path(fetched: Callable[[int, int], None] = lambda _done, _of: None) -> list[Path]:
    """Paths of all locked jars, each verified. Missing ones are fetched, telling `fetched(done, of)` after each.

    Raises StackError when one cannot be had or is not what the lock says.
    """
    jars = locked_jars()
    directory = cache_directory() / "jars"
    directory.mkdir(parents=True, exist_ok=True)
    with _exclusive(directory / ".lock"):
        missing = [jar for jar in jars if _digest(directory / jar.file_name) != jar.sha256]
        if missing:
            _fetch(missing, directory, fetched)
    return [directory / jar.file_name for jar in jars]


def lock_jars(lock: Path = LOCK) -> list[Jar]:
    """Resolves ENDPOINTS with all they need to run and writes the lock anew. Needs the network."""
    import jgo  # noqa: PLC0415 - slow to import, and only used where jars are fetched

    _trust_system_roots()
    artifacts = {str(a): a for endpoint in ENDPOINTS for a in jgo.resolve(endpoint)}
    jars = sorted({Jar(a.groupId, a.artifactId, a.version, _required_digest(a.resolve())) for a in artifacts.values()})
    head = f"# Made by `make lock-jars` from {' and '.join(ENDPOINTS)}.\n"
    lock.write_text(head + "".join(f"{jar.line}\n" for jar in jars), encoding="ascii")
    return jars


def _fetch(missing: list[Jar], directory: Path, fetched: Callable[[int, int], None]) -> None:
    from jgo.config import GlobalSettings  # noqa: PLC0415 - slow to import, and only used where jars are fetched
    from jgo.maven import MavenContext  # noqa: PLC0415

    _trust_system_roots()
    with tempfile.TemporaryDirectory(dir=directory) as draft, ThreadPoolExecutor(_PARALLEL) as pool:
        # A repository of a company's own, from jgo's settings file, takes the place of the public one.
        context = MavenContext(
            repo_cache=Path(draft),
            remote_repos=GlobalSettings.load().repositories or None,
            timeout=_TIMEOUT_SECONDS,
        )

        def fetch(jar: Jar) -> None:
            got: Path = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
            if _digest(got) != jar.sha256:
                raise StackError(f"{jar.file_name} is not the file that {LOCK.name} names: its SHA-256 differs.")
            shutil.move(got, directory / jar.file_name)

        try:
            for done, _ in enumerate(pool.map(fetch, missing), start=1):
                fetched(done, len(missing))
        except StackError:
            raise
        except Exception as error:
            raise StackError(
                f"Kafka's jars could not be fetched: {error}\n"
                f"A first start needs the network (afterwards they lie in {directory})."
            ) from error


def _trust_system_roots() -> None:
    """Company roots are often in the system's store only, where `requests` does not look."""
    if "REQUESTS_CA_BUNDLE" in os.environ or "SSL_CERT_FILE" in os.environ:
        os.environ.setdefault("REQUESTS_CA_BUNDLE", os.environ.get("SSL_CERT_FILE", ""))
        return
    for bundle in (ssl.get_default_verify_paths().cafile, _SYSTEM_BUNDLE):
        if bundle and Path(bundle).exists():
            os.environ["REQUESTS_CA_BUNDLE"] = str(bundle)
            return


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _required_digest(path: Path) -> str:
    digest = _digest(path)
    if digest is None:
        raise StackError(f"{path} was not fetched.")
    return digest


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

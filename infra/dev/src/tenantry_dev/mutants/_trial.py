"""A mutant, tried in a copy of the tree."""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
import tarfile
import venv
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from tenantry_dev.mutants._mutant import Mutant
from tenantry_dev.stack import EmbeddedKafka, EmbeddedPostgres

_SERVICES: Final = ("tenant", "usage", "billing", "app")
_SOURCES: Final = ("libs/tenancy/src", "infra/dev/src", *(f"services/{each}/src" for each in _SERVICES))
_FILES: Final = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
_COMMITTED: Final = ("git", "archive", "--format=tar", "HEAD")
_FAILED_TEST: Final = re.compile(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", re.MULTILINE)
# A mutant may make a test wait for what never comes; the tests' own limit of 300 s is for machines that are busy.
_TEST_SECONDS: Final = 120
_RUN_SECONDS: Final = 1800
_TESTS_FAILED: Final = 1


class Outcome(NamedTuple):
    """What became of a mutant: the first test that failed, or why none did."""

    test: str | None
    said: str


@contextmanager
def directory(prefix: str) -> Iterator[Path]:
    # Below /var/tmp: the servers of the tests may run as an account that cannot look into a home.
    with TemporaryDirectory(prefix=prefix, dir="/var/tmp", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextmanager
def servers() -> Iterator[Mapping[str, str]]:
    """The environment in which tests find servers that run: to start some for every mutant takes longer than the tests.

    Servers that the environment names already are taken.
    """
    if {"TENANTRY_POSTGRES_URL", "TENANTRY_KAFKA_BOOTSTRAP"} <= os.environ.keys():
        yield {}
        return
    with (
        directory("tenantry-tests-") as home,
        EmbeddedPostgres(home, settings={"fsync": "off"}) as postgres,
        EmbeddedKafka(home) as kafka,
    ):
        yield {"TENANTRY_POSTGRES_URL": postgres.url, "TENANTRY_KAFKA_BOOTSTRAP": kafka.bootstrap}


class Copy(NamedTuple):
    """A copy of the tree, and an interpreter that imports from there."""

    root: Path
    python: Path


@contextmanager
def copied(root: Path, *, committed: bool) -> Iterator[Copy]:
    """A copy of the tree: as it is now, but for what Git ignores, or as it was committed last."""
    listed = subprocess.run(  # noqa: S603 - of the words above
        _COMMITTED if committed else _FILES, cwd=root, capture_output=True, check=True
    ).stdout
    with directory("tenantry-mutants-") as copy:
        if committed:
            with tarfile.open(fileobj=BytesIO(listed)) as archive:
                archive.extractall(copy, filter="data")
        for name in () if committed else filter(None, listed.decode().split("\0")):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        yield Copy(copy, _interpreter(copy))


def _interpreter(copy: Path) -> Path:
    """One that has all that is installed here, but for our own packages, which are those of the copy.

    PYTHONPATH would do the same for the tests, and not for the processes that they start in a clean environment.
    """
    home = copy / ".venv"
    venv.create(home, symlinks=True)
    places = {"base": str(home), "platbase": str(home)}
    paths = [*(str(copy / each) for each in _SOURCES), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    # Of a directory that a .pth names, no .pth is read: the links to the tree that this runs in are not followed.
    (Path(sysconfig.get_path("purelib", "venv", places)) / "copy.pth").write_text("\n".join(paths), encoding="utf-8")
    return home / "bin" / "python"


def attempt(mutant: Mutant, copy: Copy, environment: Mapping[str, str]) -> Outcome:
    """Break the copy, test it, and leave it as it was."""
    if problem := mutant.problem(copy.root):
        return Outcome(None, f"not tried: {problem}")
    whole = {change.file: (copy.root / change.file).read_text(encoding="utf-8") for change in mutant.changes}
    mutant.apply(copy.root)
    try:
        status, output = _tested(copy, ["-x", *mutant.tests.split()], environment)
    finally:
        for file, text in whole.items():
            (copy.root / file).write_text(text, encoding="utf-8")
    if status == 0:
        return Outcome(None, "survived")
    failed = _FAILED_TEST.search(output)
    if status != _TESTS_FAILED or failed is None:
        return Outcome(None, f"not tried: {output.rpartition(chr(10))[2]}")
    return Outcome(failed[1], failed[1][failed[1].partition("::")[0].rfind("/") + 1 :])


def failing(tests: Collection[str], copy: Copy, environment: Mapping[str, str]) -> set[str]:
    """Which of the tests fail in a copy that nothing was broken in. Those have noticed nothing."""
    if not tests:
        return set()
    status, output = _tested(copy, sorted(tests), environment)
    if status not in {0, _TESTS_FAILED}:  # one of them keeps all from being run
        return {test for test in tests if _tested(copy, [test], environment)[0] != 0}
    return {failed[1] for failed in _FAILED_TEST.finditer(output)}


def _tested(copy: Copy, tests: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Pytest's exit status and what it printed."""
    # A kind of servers that is asked for would be started beside those that run.
    inherited = {name: value for name, value in os.environ.items() if name != "TEST_SERVICES"}
    with subprocess.Popen(  # noqa: S603 - of the table
        [copy.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={_TEST_SECONDS}", *tests],
        cwd=copy.root,
        env={**inherited, **environment, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_RUN_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # what the tests have started with them
            if isinstance(error, subprocess.TimeoutExpired):
                return -1, f"the tests have not ended after {_RUN_SECONDS} s"
            raise
    return process.returncode, output.strip()

"""One system of processes for all end-to-end tests, with a small trace that a killed run has already begun.

It ends with the package, not with the session: while it stands idle it takes a third of a core from the other tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tenantry_dev.home import Home
from tenantry_dev.run.settings import OPERATOR, SAMPLE_TRAFFIC
from tenantry_dev.run.stopping import remove_state
from tenantry_dev.run.system import System, running
from tenantry_dev.sample.api import Apis, connect
from tenantry_dev.sample.flow import SampleRun, run_sample
from tenantry_dev.sample.generator import generate_llm, generate_log
from tenantry_dev.sample.record import Record, choose_traces
from tenantry_dev.sample.traces import Trace

START_SECONDS = 600
COMMAND = Path(sysconfig.get_path("scripts")) / "tenantry"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A start of everything is part of the time of the test that asks for it first."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="package")
def own_servers() -> Iterator[None]:
    """Roles are those of a whole server, so these tests never share one."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("TENANTRY_POSTGRES_URL", "TENANTRY_KAFKA_BOOTSTRAP"):
            environment.delenv(name, raising=False)
        yield


@pytest.fixture(scope="package")
def home(own_servers: None) -> Iterator[Home]:
    # Not below pytest's own directories: those of root are closed to PostgreSQL's account.
    directory = Path(tempfile.mkdtemp(prefix="tenantry-e2e-"))
    home = Home(directory)
    home.create()
    generate_log(home.sample / "access.log.gz", lines=900)
    generate_llm(home.sample / "llm.csv.gz", rows=900)
    choose_traces(home, Record(home), {"log": home.sample / "access.log.gz", "llm": home.sample / "llm.csv.gz"})
    yield home
    remove_state(home)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="package")
def interrupted(home: Home) -> Home:
    """`tenantry up` has run on this state directory and was killed in the middle of onboarding."""
    log = home.logs / "interrupted.txt"
    environment = os.environ | {"TENANTRY_HOME": str(home.directory), "COLUMNS": "200"}
    with log.open("wb") as output:
        up = subprocess.Popen([COMMAND, "up"], stdout=output, stderr=subprocess.STDOUT, env=environment)
    deadline = time.monotonic() + START_SECONDS
    try:
        while Record(home).get("clock") is None:
            assert up.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    finally:
        up.kill()
        up.wait()
    return home


@pytest.fixture(scope="package")
def system(interrupted: Home) -> Iterator[System]:
    with running(interrupted, print) as system:
        yield system


@pytest.fixture(scope="package")
def traces(home: Home) -> list[Trace]:
    return choose_traces(home, Record(home), {})


@pytest.fixture
async def operator(system: System) -> AsyncIterator[Apis]:
    async with connect(system.addresses.urls, OPERATOR, system.secrets[OPERATOR]) as apis:
        yield apis


@pytest.fixture
async def sender(system: System) -> AsyncIterator[Apis]:
    async with connect(system.addresses.urls, SAMPLE_TRAFFIC, system.secrets[SAMPLE_TRAFFIC]) as apis:
        yield apis


@pytest.fixture(scope="package")
def sample(system: System, traces: list[Trace]) -> SampleRun:
    """The sample run, finished after the killed one."""
    import asyncio  # noqa: PLC0415 - the tests themselves run under anyio

    return asyncio.run(run_sample(system, Record(system.home), traces, Console(quiet=True)))

"""Starting and stopping from the command line: whatever ends it, no process stays and the next start works."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tenantry_dev.home import Home, read_json

from .conftest import COMMAND, START_SECONDS

STOP_SECONDS = 120


class Up:
    """`tenantry up --no-sample` on a state directory."""

    def __init__(self, home: Home) -> None:
        self.log = home.directory.with_suffix(".log")
        self.output = self.log.open("wb")
        self.process = subprocess.Popen(
            [COMMAND, "up", "--no-sample"], stdout=self.output, stderr=subprocess.STDOUT, env=environment(home)
        )

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while b"Up." not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def everything(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()
        self.log.unlink()


def environment(home: Home) -> dict[str, str]:
    return os.environ | {"TENANTRY_HOME": str(home.directory), "COLUMNS": "200"}


def command(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments], env=environment(home), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def fresh(own_servers: None) -> Iterator[Home]:
    directory = Path(tempfile.mkdtemp(prefix="tenantry-e2e-"))
    yield Home(directory)
    shutil.rmtree(directory, ignore_errors=True)


def test_down_and_a_killed_supervisor_leave_nothing_behind(fresh: Home) -> None:
    first = Up(fresh)
    try:
        first.wait_until_up()
        processes = first.everything()
        assert len(processes) >= 16  # the supervisor, two servers, thirteen roles
        operator = read_json(fresh.operator_file)

        second = command(fresh, "up")
        assert second.returncode == 1
        assert f"running already (process {first.process.pid}" in second.stdout

        assert command(fresh, "down").returncode == 0
        assert first.process.wait(STOP_SECONDS) == 130
        assert psutil.wait_procs(processes, timeout=10)[1] == []
    finally:
        first.close()

    orphaned = Up(fresh)
    try:
        orphaned.wait_until_up()
        assert read_json(fresh.operator_file) == operator
        processes = orphaned.everything()
        (supervisor,) = (process for process in processes if process.ppid() == orphaned.process.pid)
        supervisor.kill()
        assert orphaned.process.wait(STOP_SECONDS) == 1
        assert "The supervisor ended" in orphaned.log.read_text()
        assert psutil.wait_procs(processes, timeout=STOP_SECONDS)[1] == []
    finally:
        orphaned.close()

    assert command(fresh, "clean").returncode == 0
    assert not fresh.directory.exists()


def test_a_trace_that_cannot_be_used_is_told_before_anything_starts(fresh: Home, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.log"
    wrong.write_text("not a log\n")

    refused = command(fresh, "demo", "--log", str(wrong))

    assert refused.returncode == 1
    assert "holds no line that can be read as an access log in combined format" in refused.stdout
    assert "Starting" not in refused.stdout

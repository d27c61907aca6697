"""The embedded servers: what they survive, and what they say when they cannot start."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tenantry_dev.stack import EmbeddedKafka, EmbeddedPostgres, StackError
from tenantry_dev.stack.ports import Leases, choose_port, listens
from tenantry_dev.stack.process import require_space, wait_until

# Holds servers up in a process of its own that can be killed; says when they answer.
HOLDER = """
import sys, time
from tenantry_dev.stack import EmbeddedKafka, EmbeddedPostgres
with {server}(sys.argv[1]) as server:
    print(server.port, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Reachable by PostgreSQL's account, which pytest's own directories of root are not."""
    path = Path(tempfile.mkdtemp(prefix="tenantry-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def closed_directory(directory: Path) -> Path:
    """As a clone in the home of root is."""
    directory.chmod(0o700)
    return directory / "clone"


async def fetch(server: EmbeddedPostgres, query: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_postgres_keeps_its_data_and_its_settings(directory: Path) -> None:
    with EmbeddedPostgres(directory) as server:
        assert await fetch(server, "SHOW wal_level") == "logical"
        assert await fetch(server, "SHOW fsync") == "on"
        assert await fetch(server, "SHOW server_version_num") >= "180000"  # type: ignore[operator]
        assert await fetch(server, "SHOW password_encryption") == "scram-sha-256"
        await fetch(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    with EmbeddedPostgres(directory) as server:
        assert await fetch(server, "SELECT answer FROM kept") == 42
    assert (directory / "postgres.password").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")
async def test_postgres_of_root_runs_as_an_account_of_its_own(directory: Path) -> None:
    with EmbeddedPostgres(directory) as server:
        pid = int((server.data / "postmaster.pid").read_text().split()[0])
        assert psutil.Process(pid).uids().effective != 0
        assert pwd.getpwuid(server.data.stat().st_uid).pw_name == server.account


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")
async def test_postgres_of_root_starts_below_a_closed_directory(closed_directory: Path) -> None:
    server = EmbeddedPostgres(closed_directory)
    try:
        with server:
            assert await fetch(server, "SELECT 1") == 1
            assert not server.data.is_relative_to(closed_directory)
    finally:
        server.remove()
    assert not server.data.exists()


@pytest.mark.parametrize("name", ["EmbeddedPostgres", "EmbeddedKafka"])
def test_a_server_dies_with_its_parent_and_starts_again(directory: Path, name: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(server=name), directory], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder.stdout as output:
        assert output.readline()
    servers = psutil.Process(holder.pid).children(recursive=True)
    assert servers

    holder.kill()
    holder.wait()

    assert psutil.wait_procs(servers, timeout=20)[1] == []
    with {"EmbeddedPostgres": EmbeddedPostgres, "EmbeddedKafka": EmbeddedKafka}[name](directory) as again:
        assert again.is_ready()


async def test_postgres_starts_again_after_it_was_killed(directory: Path) -> None:
    server = EmbeddedPostgres(directory)
    with server:
        await fetch(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        postmaster = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
        backends = postmaster.children()
        postmaster.kill()
        psutil.wait_procs([*backends], timeout=20)
        assert (server.data / "postmaster.pid").exists()
    with server:
        assert await fetch(server, "SELECT answer FROM kept") == 42


async def test_postgres_starts_although_its_pid_file_names_another_process(directory: Path) -> None:
    """As after a restart of the machine: PostgreSQL itself refuses when that process is of its own account."""
    server = EmbeddedPostgres(directory)
    server.prepare()
    with subprocess.Popen(["sleep", "600"], user=server.account) as other:  # noqa: ASYNC220 - starts at once
        (server.data / "postmaster.pid").write_text(f"{other.pid}\n{server.data}\n")
        try:
            with server:
                assert await fetch(server, "SELECT 1") == 1
        finally:
            assert other.poll() is None
            other.kill()


async def test_kafka_keeps_its_topics_and_makes_none_by_accident(directory: Path) -> None:
    with EmbeddedKafka(directory) as broker:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic("kept", 12, 1)])
        await admin.close()
    with EmbeddedKafka(directory) as broker:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        assert await admin.list_topics() == ["kept"]
        await admin.close()


@pytest.fixture
def leases() -> Iterator[Leases]:
    with contextlib.closing(Leases()) as leases:
        yield leases


def test_a_fixed_port_in_use_is_named(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("TENANTRY_KAFKA_PORT", str(port))

        with pytest.raises(StackError, match=rf"TENANTRY_KAFKA_PORT={port}: the port is in use"):
            choose_port(leases, "TENANTRY_KAFKA_PORT", 9092)

        monkeypatch.delenv("TENANTRY_KAFKA_PORT")
        assert choose_port(leases, "TENANTRY_KAFKA_PORT", port) > port
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)


def test_two_systems_that_start_at_once_get_different_ports(leases: Leases) -> None:
    with contextlib.closing(Leases()) as others:
        first = choose_port(leases, "UNSET", 20_000)
        second = choose_port(others, "UNSET", 20_000, previous=first)

    assert first != second
    with contextlib.closing(Leases()) as later:
        assert choose_port(later, "UNSET", second) == second


def test_a_server_that_finds_its_port_taken_says_so(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = EmbeddedPostgres(directory, port=other.getsockname()[1])

        with pytest.raises(StackError, match="took its port"):
            server.start()


def test_a_full_disk_is_told_before_anything_starts(directory: Path) -> None:
    with pytest.raises(StackError, match="MiB are free where"):
        require_space(directory, needed=2**60)


def test_waiting_ends_when_the_process_has_ended() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()

    assert not wait_until(lambda: False, alive=lambda: ended.poll() is None, within=60)


def test_an_interrupted_initialisation_is_done_anew(directory: Path) -> None:
    draft = directory / "postgres" / "data.draft"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18")

    server = EmbeddedPostgres(directory)
    with server:
        assert server.is_ready()
    assert not draft.exists()


def test_the_signal_of_a_dead_parent_survives_the_change_of_account(directory: Path) -> None:
    """The kernel clears it when credentials change; the guard must set it afterwards."""
    with EmbeddedPostgres(directory) as server:
        pid = int((server.data / "postmaster.pid").read_text().split()[0])
        assert psutil.Process(pid).ppid() == os.getpid()
        os.kill(pid, signal.SIGHUP)  # reload: the server is a direct child, nothing stands between
        assert server.is_ready()

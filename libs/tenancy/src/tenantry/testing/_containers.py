"""PostgreSQL, Kafka and Valkey in Docker, for tests."""

import io
import tarfile
from typing import Final, Self

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import ExecWaitStrategy, LogMessageWaitStrategy

POSTGRES_IMAGE: Final = "postgres:18"
KAFKA_IMAGE: Final = "apache/kafka:4.3.1"
VALKEY_IMAGE: Final = "valkey/valkey:8-alpine"

_PASSWORD: Final = "only-for-tests"  # noqa: S105 - the container's, which dies with the tests
_START_SCRIPT: Final = "/tmp/start-kafka.sh"  # noqa: S108 - inside the container
_START_SECONDS: Final = 90
_BROKER: Final = {
    "NODE_ID": "1",
    "PROCESS_ROLES": "broker,controller",
    "LISTENERS": "CLIENT://:9092,BROKER://:9093,CONTROLLER://:9094",
    "LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "INTER_BROKER_LISTENER_NAME": "BROKER",
    "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "CONTROLLER_QUORUM_VOTERS": "1@localhost:9094",
    "AUTO_CREATE_TOPICS_ENABLE": "false",
    "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "OFFSETS_TOPIC_NUM_PARTITIONS": "4",
    "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
    "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
}


class PostgresServer(DockerContainer):
    """PostgreSQL with the settings that Tenantry asks of a server; runs from enter to exit."""

    def __init__(self, image: str = POSTGRES_IMAGE) -> None:
        super().__init__(image)
        self.with_exposed_ports(5432)
        self.with_env("POSTGRES_PASSWORD", _PASSWORD)
        self.with_command(["postgres", "-c", "wal_level=logical", "-c", "max_connections=300"])

    @property
    def url(self) -> str:
        host, port = self.get_container_host_ip(), self.get_exposed_port(5432)
        return f"postgresql://postgres:{_PASSWORD}@{host}:{port}/postgres"

    def start(self) -> Self:
        super().start()
        # The image starts a server twice; the first one only runs its initialisation and does not listen on TCP.
        ready = ExecWaitStrategy(["pg_isready", "-h", "127.0.0.1", "-U", "postgres"])
        ready.with_startup_timeout(_START_SECONDS).wait_until_ready(self)
        return self


class KafkaServer(DockerContainer):
    """One broker in KRaft mode; runs from enter to exit.

    A broker announces the address that clients reach it by, and Docker tells the port of that address only once the
    container runs. So the container starts with a wait for a script, which is then written with the address in it.
    """

    def __init__(self, image: str = KAFKA_IMAGE) -> None:
        super().__init__(image)
        self.with_exposed_ports(9092)
        for name, value in _BROKER.items():
            self.with_env(f"KAFKA_{name}", value)
        self.with_command(["sh", "-c", f"until [ -x {_START_SCRIPT} ]; do sleep 0.1; done; exec {_START_SCRIPT}"])

    @property
    def bootstrap(self) -> str:
        return f"{self.get_container_host_ip()}:{self.get_exposed_port(9092)}"

    def start(self) -> Self:
        super().start()
        listeners = f"CLIENT://{self.bootstrap},BROKER://localhost:9093"
        script = f"#!/bin/sh\nexport KAFKA_ADVERTISED_LISTENERS={listeners}\nexec /etc/kafka/docker/run\n"
        self.get_wrapped_container().put_archive("/", _archive(_START_SCRIPT, script.encode()))
        ready = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_SECONDS)
        ready.wait_until_ready(self)
        return self


class ValkeyServer(DockerContainer):
    """Valkey without persistence; runs from enter to exit."""

    def __init__(self, image: str = VALKEY_IMAGE) -> None:
        super().__init__(image)
        self.with_exposed_ports(6379)
        self.with_command(["valkey-server", "--save", "", "--appendonly", "no"])

    @property
    def url(self) -> str:
        return f"redis://{self.get_container_host_ip()}:{self.get_exposed_port(6379)}/0"

    def start(self) -> Self:
        super().start()
        ready = ExecWaitStrategy(["valkey-cli", "ping"])
        ready.with_startup_timeout(_START_SECONDS).wait_until_ready(self)
        return self


def _archive(path: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()

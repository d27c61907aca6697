"""Where the tests find PostgreSQL and Kafka.

1. TENANTRY_POSTGRES_URL and TENANTRY_KAFKA_BOOTSTRAP together: servers that run already and belong to the tests.
2. Docker, if it answers and has, or can pull, both images: a container of each for the run.
3. The embedded stack.

TEST_SERVICES=docker or embedded forces one; a forced Docker that does not answer is an error.
"""

# ruff: noqa: PLC0415 - only the chosen backend is imported

import contextlib
import gc
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest

# A test server's data need not survive a power cut.
UNSAFE = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Backend:
    kind: Literal["external", "docker", "embedded"]
    reason: str


class Servers:
    """The servers of a run: each starts when it is first asked for, and all end with close()."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._started = contextlib.ExitStack()

    @cached_property
    def postgres_url(self) -> str:
        match self.backend.kind:
            case "external":
                return os.environ["TENANTRY_POSTGRES_URL"]
            case "docker":
                from tenantry.testing._containers import PostgresServer

                return self._started.enter_context(PostgresServer()).url
            case "embedded":
                from tenantry_dev.stack import EmbeddedPostgres

                directory = self._started.enter_context(service_directory())
                return self._started.enter_context(EmbeddedPostgres(directory, settings=UNSAFE)).url

    @cached_property
    def kafka_bootstrap(self) -> str:
        match self.backend.kind:
            case "external":
                return os.environ["TENANTRY_KAFKA_BOOTSTRAP"]
            case "docker":
                from tenantry.testing._containers import KafkaServer

                return self._started.enter_context(KafkaServer()).bootstrap
            case "embedded":
                from tenantry_dev.stack import EmbeddedKafka

                directory = self._started.enter_context(service_directory())
                return self._started.enter_context(EmbeddedKafka(directory)).bootstrap

    @cached_property
    def redis_url(self) -> str:
        """Valkey in Docker where the other servers are there too, else a Redis server as a process."""
        if self.backend.kind == "docker":
            from tenantry.testing._containers import ValkeyServer

            return self._started.enter_context(ValkeyServer()).url
        from redis_process import running_redis

        directory = self._started.enter_context(service_directory())
        return self._started.enter_context(running_redis(directory)).url

    def close(self) -> None:
        self._started.close()


class SharedServers(Servers):
    """The servers that another process of this run has started."""

    def __init__(self, shared: dict[str, str]) -> None:
        super().__init__(Backend(shared["kind"], shared["reason"]))  # type: ignore[arg-type] # what share() has written
        self.postgres_url = shared["postgres_url"]
        self.kafka_bootstrap = shared["kafka_bootstrap"]


def share(servers: Servers) -> dict[str, str]:
    """What another process needs to use the same servers: starts them."""
    return {
        "kind": servers.backend.kind,
        "reason": servers.backend.reason,
        "postgres_url": servers.postgres_url,
        "kafka_bootstrap": servers.kafka_bootstrap,
    }


def choose(*, pull: bool) -> Backend:
    forced = os.environ.get("TEST_SERVICES")
    if forced not in {None, "docker", "embedded"}:
        raise pytest.UsageError(f"TEST_SERVICES is {forced!r}: docker or embedded")
    if forced is None and {"TENANTRY_POSTGRES_URL", "TENANTRY_KAFKA_BOOTSTRAP"} <= os.environ.keys():
        return Backend("external", "TENANTRY_POSTGRES_URL and TENANTRY_KAFKA_BOOTSTRAP")
    if forced == "embedded":
        return Backend("embedded", "TEST_SERVICES")
    why_not = why_not_docker(pull=pull)
    if why_not is None:
        return Backend("docker", "TEST_SERVICES" if forced else "it answers")
    if forced == "docker":
        raise pytest.UsageError(f"TEST_SERVICES is docker, but {why_not}")
    return Backend("embedded", why_not)


def why_not_docker(*, pull: bool) -> str | None:
    import docker
    from docker.errors import DockerException, ImageNotFound
    from requests.exceptions import RequestException

    from tenantry.testing._containers import KAFKA_IMAGE, POSTGRES_IMAGE

    try:
        with contextlib.closing(docker.from_env(timeout=5)) as client:
            client.ping()
            for image in (POSTGRES_IMAGE, KAFKA_IMAGE):
                try:
                    client.images.get(image)
                except ImageNotFound:
                    if not pull:
                        return f"Docker has no image {image}"
                    with contextlib.closing(docker.from_env(timeout=300)) as patient:
                        patient.images.pull(image)
    except (DockerException, RequestException):
        return "Docker does not answer, or has no images"
    finally:
        # A client that cannot connect leaves its socket to the garbage collector, which would complain in some test.
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()
    return None


@contextlib.contextmanager
def service_directory() -> Iterator[Path]:
    # Below /var/tmp and not below the repository: the servers may run as an account that cannot look in there.
    with TemporaryDirectory(prefix="tenantry-tests-", dir="/var/tmp", ignore_cleanup_errors=True) as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path

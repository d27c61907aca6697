"""Where the tests find PostgreSQL and Kafka, said in pytest's header.

1. TENANTRY_POSTGRES_URL and TENANTRY_KAFKA_BOOTSTRAP together: servers that run already and belong to the tests.
2. Docker, if it answers and has, or can pull, both images: a container of each for the session.
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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest

UNIT = Path(__file__).parent / "unit"


@dataclass(frozen=True)
class Backend:
    kind: Literal["external", "docker", "embedded"]
    reason: str


BACKEND = pytest.StashKey[Backend]()


def pytest_configure(config):
    config.stash[BACKEND] = choose(pull=not only_unit_tests(config))


def pytest_report_header(config):
    backend = config.stash[BACKEND]
    return f"services: {backend.kind} ({backend.reason})"


@pytest.fixture(autouse=True)
def _no_secret_is_logged():
    """Fails a test in which a secret that a fixture has made stands in a log record as it would be written."""
    from secret_watch import watching

    with watching() as found:
        yield
    assert not found, f"a secret was logged by {', '.join(sorted(set(found)))}"


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="session")
def postgres_url(request) -> Iterator[str]:
    match request.config.stash[BACKEND].kind:
        case "external":
            yield os.environ["TENANTRY_POSTGRES_URL"]
        case "docker":
            from tenantry.testing._containers import PostgresServer

            with PostgresServer() as server:
                yield server.url
        case "embedded":
            from tenantry_dev.stack import EmbeddedPostgres

            with service_directory() as directory, EmbeddedPostgres(directory) as server:
                yield server.url


@pytest.fixture(scope="session")
def kafka_bootstrap(request) -> Iterator[str]:
    match request.config.stash[BACKEND].kind:
        case "external":
            yield os.environ["TENANTRY_KAFKA_BOOTSTRAP"]
        case "docker":
            from tenantry.testing._containers import KafkaServer

            with KafkaServer() as server:
                yield server.bootstrap
        case "embedded":
            from tenantry_dev.stack import EmbeddedKafka

            with service_directory() as directory, EmbeddedKafka(directory) as server:
                yield server.bootstrap


@pytest.fixture(scope="session")
def redis_url(request) -> Iterator[str]:
    """Valkey in Docker where the other servers are there too, else a Redis server as a process."""
    if request.config.stash[BACKEND].kind == "docker":
        from tenantry.testing._containers import ValkeyServer

        with ValkeyServer() as server:
            yield server.url
    else:
        from redis_process import running_redis

        with service_directory() as directory, running_redis(directory) as process:
            yield process.url


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


def only_unit_tests(config) -> bool:
    paths = [Path(argument.partition("::")[0]) for argument in config.args]
    return all((config.invocation_params.dir / path).resolve().is_relative_to(UNIT) for path in paths)


@contextlib.contextmanager
def service_directory() -> Iterator[Path]:
    # Below /var/tmp and not below the repository: the servers may run as an account that cannot look in there.
    with TemporaryDirectory(prefix="tenantry-tests-", dir="/var/tmp", ignore_cleanup_errors=True) as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path

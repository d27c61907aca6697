"""The servers that the tests share, said in pytest's header, and how pytest-xdist spreads the tests.

tests/support/servers.py says where PostgreSQL and Kafka come from.
"""

# ruff: noqa: PLC0415 - pytest-xdist is imported only in a run that uses it

from pathlib import Path

import pytest
from hypothesis import settings
from servers import Servers, SharedServers, choose, share

UNIT = Path(__file__).parent / "unit"

# How long an example takes says how busy the machine is.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

SERVERS = pytest.StashKey[Servers]()


def pytest_configure(config):
    shared = getattr(config, "workerinput", {}).get("servers")
    servers = SharedServers(shared) if shared else Servers(choose(pull=not only_unit_tests(config)))
    config.stash[SERVERS] = servers
    config.add_cleanup(servers.close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """The workers of pytest-xdist use the servers that their controller starts, before they are started themselves."""
    if not only_unit_tests(node.config):
        node.workerinput["servers"] = share(node.config.stash[SERVERS])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Whole files go to a worker, because their databases and topics are the file's own, and all end-to-end tests to
    one, because they share a system.

    In the order of collection: the long ones first, and the many short unit tests fill the end.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist ships no types
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "tests/e2e" if path.startswith("tests/e2e/") else path

    config.option.loadscopereorder = False
    return FileScheduling(config, log)


def pytest_report_header(config):
    backend = config.stash[SERVERS].backend
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
def postgres_url(request) -> str:
    return request.config.stash[SERVERS].postgres_url


@pytest.fixture(scope="session")
def kafka_bootstrap(request) -> str:
    return request.config.stash[SERVERS].kafka_bootstrap


@pytest.fixture(scope="session")
def redis_url(request) -> str:
    return request.config.stash[SERVERS].redis_url


def only_unit_tests(config) -> bool:
    paths = [Path(argument.partition("::")[0]) for argument in config.args]
    return all((config.invocation_params.dir / path).resolve().is_relative_to(UNIT) for path in paths)

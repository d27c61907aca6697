"""The pytest plugin: fixtures for services that are built on the library.

A project says where its servers are by the fixtures ``postgres_url`` and ``kafka_bootstrap``; without that they come
from the options ``--tenantry-postgres`` and ``--tenantry-kafka``, or else from TENANTRY_POSTGRES_URL and
TENANTRY_KAFKA_BOOTSTRAP. The server must be the tests' own: they set the roles' passwords. Imports are inside the
fixtures, because pytest loads a plugin in every run, also where none is used.
"""

# ruff: noqa: PLC0415 - pytest loads a plugin in every run; one that uses none of this must not pay for it

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    from tenantry import Tenant
    from tenantry.testing._databases import ServiceDatabase, ServiceTemplates
    from tenantry.testing._tenants import TenantFactory

    class ServiceDatabases(Protocol):
        def __call__(self, service: str, migrations: Path | None = None) -> ServiceDatabase: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the servers of the tests are."""
    group = parser.getgroup("tenantry")
    group.addoption("--tenantry-postgres", metavar="URL", help="administrator's URL of a PostgreSQL server for tests")
    group.addoption("--tenantry-kafka", metavar="HOST:PORT", help="bootstrap server of a Kafka broker for tests")


@pytest.fixture(scope="session")
def postgres_url(pytestconfig: pytest.Config) -> str:
    """An administrator's URL of the PostgreSQL server of the tests."""
    return _required(pytestconfig, "--tenantry-postgres", "TENANTRY_POSTGRES_URL")


@pytest.fixture(scope="session")
def kafka_bootstrap(pytestconfig: pytest.Config) -> str:
    """host:port of the Kafka broker of the tests."""
    return _required(pytestconfig, "--tenantry-kafka", "TENANTRY_KAFKA_BOOTSTRAP")


@pytest.fixture(scope="session")
def service_templates(postgres_url: str) -> "Iterator[ServiceTemplates]":
    """The migrated templates that the databases of the modules are copied from."""
    from tenantry.testing._databases import ServiceTemplates

    templates = ServiceTemplates(postgres_url)
    yield templates
    templates.drop()


@pytest.fixture(scope="module")
def service_database(service_templates: "ServiceTemplates") -> "Iterator[ServiceDatabases]":
    """``service_database("usage")``: the module's own migrated, empty database of that service, dropped at its end.

    The same service gives the same database again. A second argument is the directory of its migrations, for a
    service that is not installed as a package of that name.
    """
    from tenantry.testing._databases import run_aside

    made: dict[str, ServiceDatabase] = {}

    def get(service: str, migrations: "Path | None" = None) -> "ServiceDatabase":
        if service not in made:
            made[service] = service_templates.create(service, migrations)
        return made[service]

    yield get
    for database in made.values():
        run_aside(database.drop())


@pytest.fixture(scope="module")
def kafka_prefix(kafka_bootstrap: str) -> Iterator[str]:
    """A prefix that makes topics, groups and transactional ids the module's own; its topics are deleted at the end."""
    from tenantry.testing._topics import delete_topics

    prefix = f"test-{uuid4().hex[:8]}."
    yield prefix
    delete_topics(kafka_bootstrap, prefix)


@pytest.fixture
def tenant_factory() -> "TenantFactory":
    """Makes tenants."""
    from tenantry.testing._tenants import TenantFactory

    return TenantFactory()


@pytest.fixture
def tenant_a(tenant_factory: "TenantFactory") -> "Tenant":
    """A tenant; tests give it the same natural keys as ``tenant_b``."""
    return tenant_factory(slug="tenant-a")


@pytest.fixture
def tenant_b(tenant_factory: "TenantFactory") -> "Tenant":
    """The other tenant."""
    return tenant_factory(slug="tenant-b")


def _required(config: pytest.Config, option: str, variable: str) -> str:
    found: str | None = config.getoption(option) or os.environ.get(variable)
    if found is None:
        pytest.fail(f"neither {option} nor {variable} says where the server is, nor does the project", pytrace=False)
    return found

"""What `pip install tenantry` brings, and that it is enough for what the core promises."""

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path
from typing import cast

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Not imported, as if they were not installed: what only extras bring.
WITHOUT_EXTRAS = """
import sys
for name in ("aiokafka", "alembic", "anyio", "cryptography", "fastapi", "httpx", "joserfc", "psycopg", "pydantic",
             "pydantic_settings", "redis", "rich", "starlette", "tenacity", "typer", "yaml"):
    sys.modules[name] = None
"""


def closure(name, extras=frozenset()):
    """The distributions that a fresh installation gets, by the metadata of those that are installed here."""
    found: dict[str, frozenset[str]] = {}
    waiting = [(name, frozenset(extras))]
    while waiting:
        name, extras = waiting.pop()
        for text in requires(name) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
                known, wanted = found.get(canonicalize_name(requirement.name)), frozenset(requirement.extras)
                if known is None or not wanted <= known:
                    found[canonicalize_name(requirement.name)] = wanted | (known or frozenset())
                    waiting.append((requirement.name, wanted))
    return set(found)


def test_the_core_brings_fewer_than_twelve_distributions_and_no_client_of_kafka():
    brought = closure("tenantry")
    assert {"sqlalchemy", "greenlet", "asyncpg", "msgspec"} <= brought
    assert len(brought | {"tenantry"}) < 12, sorted(brought)
    assert not brought & {"aiokafka", "kafka-python", "confluent-kafka", "fastapi", "pydantic"}


def test_the_extras_bring_what_they_name():
    assert "aiokafka" in closure("tenantry", {"kafka"})
    assert "fastapi" in closure("tenantry", {"fastapi"})


def test_the_core_works_without_the_extras():
    script = """
import asyncio, datetime, uuid
import tenantry, tenantry.cache, tenantry.config, tenantry.features, tenantry.limits
from tenantry import LocalDirectory, Tenant, TenantId, TenantStatus, current_tenant, tenant_scope
from tenantry.database import DatabaseSettings, Databases, TenantColumn, metadata, tenant_table

tenant = Tenant(id=TenantId(uuid.uuid4()), external_id="acme", slug="acme", name="Acme", status=TenantStatus.ACTIVE,
                tier="standard", version=1, created_at=datetime.datetime.now(datetime.UTC))
directory = LocalDirectory.of([tenant])

async def main():
    databases = Databases("shelf", DatabaseSettings(database_url="postgresql://shelf@localhost:1/shelf"))
    with tenant_scope(directory.resolve("acme")):
        assert current_tenant() is tenant
        databases.tenant_session()
    await databases.dispose()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS + script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("expression", "extra"),
    [
        ("from tenantry import Tenancy", "fastapi"),
        ("from tenantry.database import migrate", "migrations"),
        ("from tenantry.identity import TokenVerifier", "fastapi"),
    ],
)
def test_what_is_missing_is_named_by_its_extra(expression, extra):
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS + expression], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 1
    assert "ImportError: tenantry." in ran.stderr
    assert f"pip install 'tenantry[{extra}]'" in ran.stderr


def test_a_plain_import_brings_in_nothing_else():
    script = "import sys, tenantry; print(*(n for n in ('sqlalchemy', 'asyncpg', 'fastapi') if n in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == []


@pytest.mark.parametrize(
    "name",
    ["tenantry", "tenantry.cli", "tenantry.database", "tenantry.doctor", "tenantry.identity", "tenantry.testing"],
)
def test_what_is_imported_late_is_what_type_checkers_see(name):
    module = import_module(name)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {(node.module, alias.name) for node in cast("list[ast.ImportFrom]", block.body) for alias in node.names}
    (call,) = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and cast("ast.Name", n.func).id == "lazy_exports")
    late = {(f"{name}.{found}", export) for found, names in ast.literal_eval(call.args[1]).items() for export in names}
    assert late == seen
    assert {export for _, export in late} <= set(module.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    module = import_module("tenantry")
    assert not hasattr(module, "Tenency")

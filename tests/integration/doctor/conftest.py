"""A database for each schema of the corpus, with roles whose names no other test has."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest

from tenantry.database._url import dsn, with_database
from tenantry.testing._databases import PASSWORD, drop_databases, run_aside

SCHEMAS = Path(__file__).parent / "schemas"


@dataclass
class Planted:
    """`url` is that of the role that the manifest says; `admin_url` sees everything in the same database."""

    name: str
    prefix: str
    manifest: dict
    url: str
    admin_url: str


@pytest.fixture(scope="module")
def planted(postgres_url):
    """Makes the database of a schema, by its name."""
    made = []
    known = {}

    def plant(schema):
        if schema not in known:
            prefix = f"d{uuid4().hex[:6]}_"
            made.append((f"doctor_{prefix}{schema}", prefix))
            known[schema] = run_aside(_plant(postgres_url, schema, *made[-1]))
        return known[schema]

    yield plant
    for name, prefix in made:
        run_aside(_remove(postgres_url, name, prefix))


async def _plant(admin_url, schema, name, prefix):
    connection = await asyncpg.connect(dsn(admin_url))
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    finally:
        await connection.close()
    url = with_database(admin_url, name)
    connection = await asyncpg.connect(dsn(url))
    try:
        await connection.execute((SCHEMAS / f"{schema}.sql").read_text("utf-8").replace("{p}", prefix))
    finally:
        await connection.close()
    manifest = tomllib.loads((SCHEMAS / f"{schema}.toml").read_text("utf-8").replace("{p}", prefix))
    authority = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    role_url = f"postgresql://{quote(manifest['connect_as'])}:{PASSWORD}@{authority}/{name}"
    return Planted(schema, prefix, manifest, role_url, url)


async def _remove(admin_url, name, prefix):
    await drop_databases(admin_url, name)
    connection = await asyncpg.connect(dsn(admin_url))
    try:
        for role in await connection.fetch("SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)", prefix):
            await connection.execute(f'DROP ROLE "{role["rolname"]}"')
    finally:
        await connection.close()


class Blank:
    """A database with nothing in it."""

    def __init__(self, url):
        self.url = url

    async def execute(self, script):
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(script)
        finally:
            await connection.close()


@pytest.fixture
async def blank(postgres_url):
    name = f"doctor_{uuid4().hex[:8]}"
    await Blank(dsn(postgres_url)).execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    yield Blank(dsn(with_database(postgres_url, name)))
    await drop_databases(postgres_url, name)

"""A service of two tables, "shelf", that only these tests have."""

from pathlib import Path

import pytest
from sqlalchemy import text

from tenantry import Isolation, uuid7
from tenantry.database import Migrator, create_tenant_database, migrate, tenant_schema

MIGRATIONS = Path(__file__).parent / "migrations"


class Shelf:
    """What a test does with the service, besides the library's own calls."""

    service = "shelf"
    migrations = MIGRATIONS

    def __init__(self, database):
        self.database = database

    async def provision(self, tenant):
        match tenant.placement.isolation:
            case Isolation.SCHEMA:
                async with Migrator(self.database.urls.provisioner, "shelf", directory=MIGRATIONS) as migrator:
                    await migrator.migrate(tenant_schema(tenant.id))
            case Isolation.DATABASE:
                self.database.owns_database_of(tenant.id)
                url = await create_tenant_database(self.database.urls.provisioner, "shelf", tenant.id)
                await migrate(url, "shelf", directory=MIGRATIONS)

    @staticmethod
    async def add(session, tenant, title="A book"):
        """Adds a book and returns its id."""
        key = uuid7()
        await session.execute(
            text("INSERT INTO book (tenant_id, id, title) VALUES (:tenant, :id, :title)"),
            {"tenant": tenant.id, "id": key, "title": title},
        )
        return key

    @staticmethod
    async def titles(session):
        """Every title that the session can see: without a predicate, so that only the database stands guard."""
        return sorted(await session.scalars(text("SELECT title FROM book")))


@pytest.fixture(scope="module")
def shelf(service_database):
    return Shelf(service_database("shelf", MIGRATIONS))


@pytest.fixture
async def databases(shelf):
    """Few connections, so that transactions of tenants share them."""
    await shelf.database.truncate()
    async with shelf.database.databases(pool_size=2, pool_overflow=0) as databases:
        yield databases

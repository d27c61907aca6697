from collections.abc import AsyncIterator, Callable

import pytest
from billing_installation import Installation

from tenantry.testing import ServiceDatabase

from .support import Billing


@pytest.fixture
async def billing(service_database: Callable[[str], ServiceDatabase]) -> AsyncIterator[Billing]:
    """An empty billing database with one seller, and a worker over it."""
    database = service_database("billing")
    await database.truncate()
    async with database.connect() as connection:
        await connection.execute("INSERT INTO system.seller VALUES ('default', '', 'INV-', 1)")
    async with database.databases(follow_placement=False) as databases:
        yield Billing(databases)


@pytest.fixture
async def installation(
    service_database: Callable[[str], ServiceDatabase], kafka_bootstrap: str, kafka_prefix: str
) -> AsyncIterator[Installation]:
    """An empty billing database, topics that only this module uses, and the services around billing."""
    database = service_database("billing")
    await database.truncate()
    async with database.connect() as connection:
        await connection.execute("INSERT INTO system.seller VALUES ('default', '', 'INV-', 1)")
    async with Installation.start(database, kafka_bootstrap, kafka_prefix) as started:
        yield started

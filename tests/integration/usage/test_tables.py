"""Every table is in the data catalogue and as isolated as it says, days that were made later included."""

from __future__ import annotations

from datetime import date

import asyncpg
import pytest

from usage_service.data_catalogue import CATALOGUE
from usage_service.metering.days import OwnedDays


@pytest.fixture
async def database(service_database):
    found = service_database("usage")
    await OwnedDays(found.urls.migrator).ensure([date(2015, 5, 17), date(2026, 11, 21)])
    return found


async def test_the_database_is_as_the_catalogue_says(database):
    async with database.databases(follow_placement=False) as databases, databases.system.connect() as connection:
        assert await CATALOGUE.audit(connection) == []


@pytest.mark.parametrize("role", ["service", "system"])
async def test_a_day_is_reached_through_its_parent_only(database, role):
    async with database.connect(role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT FROM pool.usage_event_20150517")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT system.ensure_usage_days('{2030-01-01}')")


async def test_without_a_tenant_nothing_is_seen_and_nothing_can_be_written(database, tenant_a):
    async with database.connect("system") as connection:
        await connection.execute(
            """
            INSERT INTO pool.unmatched_type VALUES ($1, 't', 1, now(), now()) ON CONFLICT DO NOTHING
            """,
            tenant_a.id,
        )
    async with database.connect("service") as connection:
        assert await connection.fetch("SELECT FROM pool.unmatched_type") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM pool.unmatched_type")

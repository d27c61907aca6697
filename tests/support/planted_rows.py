"""A row of a tenant in every table that holds rows of tenants, with a word in it that is nowhere else."""

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg
from secret_watch import watched

from tenantry import uuid7
from tenantry.database import DataCatalogue

METER = uuid4()
"""The id of a meter by the name "meter", which the rollups of the usage service are of."""

_COLUMNS = """
    SELECT column_name, data_type FROM information_schema.columns
     WHERE table_schema = 'pool' AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position
"""


class Planted(NamedTuple):
    own_id: UUID
    """What stands in every column of ids."""
    word: str
    """What stands in every text."""


async def plant(connection: asyncpg.Connection, catalogue: DataCatalogue, tenant_id: UUID) -> Planted:
    """Insert the rows of a tenant of the usage or the billing service, as the server's administrator."""
    own_id, word, now = uuid7(), watched(f"canary{uuid4().hex}"), datetime.now(UTC)
    by_type = {
        "uuid": own_id, "text": word, "jsonb": "{}", "bytea": word.encode(), "boolean": False, "date": now.date(),
        "timestamp with time zone": now, "integer": 1, "bigint": 1, "numeric": 1, "ARRAY": [],
    }  # fmt: skip
    json = f'{{"word": "{word}"}}'
    # What the service could not read otherwise, whatever the table.
    by_name = {
        "tenant_id": tenant_id, "currency": "USD", "time_zone": "UTC", "anchor": "anniversary", "skipped": None,
        "meter_id": METER, "data": json, "groups": json, "kind": "period",
        "meter": "meter", "interval": "month", "recurrence": None, "alerts": "[]",
        "given_by": "override", "refill": None, "plans": "[]",
        "step": "days", "hashes": "[]", "paths": "[]", "telling_meters": "[]", "days": "[]", "look_at": None,
    }  # fmt: skip
    async with connection.transaction():
        if catalogue.service == "usage":
            await connection.execute("SELECT system.ensure_usage_days(ARRAY[(now() AT TIME ZONE 'UTC')::date])")
            await connection.execute(
                "INSERT INTO system.meter VALUES ($1, 'meter', 1, 't', 'count', NULL, '{}', '{}', '1', 0, NULL, now())"
                " ON CONFLICT DO NOTHING",
                METER,
            )
        # The parents among them may come last.
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in catalogue.tenant_tables:
            columns = await connection.fetch(_COLUMNS, table)
            row = {column: by_name.get(column, by_type[kind]) for column, kind in columns}
            if table == "invoice_line":
                row["kind"] = "charge"
            names, marks = ", ".join(f'"{name}"' for name in row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
            await connection.execute(f"INSERT INTO pool.{table} ({names}) VALUES ({marks})", *row.values())
    return Planted(own_id, word)


async def fingerprint(connection: asyncpg.Connection, catalogue: DataCatalogue, tenant_id: UUID) -> dict[str, str]:
    """A hash of the tenant's rows in each of these tables."""
    return {
        table: await connection.fetchval(
            f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM pool.{table} t WHERE tenant_id = $1", tenant_id
        )
        for table in catalogue.tenant_tables
    }

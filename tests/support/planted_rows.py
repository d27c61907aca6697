"""A row of a tenant in every table that holds rows of tenants, with a word in it that is nowhere else."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from tenantry.database import DataCatalogue

_COLUMNS = """
    SELECT column_name, data_type FROM information_schema.columns
     WHERE table_schema = 'pool' AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position
"""


async def plant(
    connection: asyncpg.Connection,
    catalogue: DataCatalogue,
    tenant_id: UUID,
    own_id: UUID,
    word: str,
    values: Mapping[str, Any],
) -> None:
    """Insert the rows, as the server's administrator: `own_id` in every column of ids, `word` in every text.

    `values` are for columns by name, whatever the table, where the service could not read that.
    """
    now = datetime.now(UTC)
    by_type = {
        "uuid": own_id, "text": word, "jsonb": "{}", "bytea": word.encode(), "boolean": False, "date": now.date(),
        "timestamp with time zone": now, "integer": 1, "bigint": 1, "numeric": 1,
    }  # fmt: skip
    async with connection.transaction():
        # The parents among them may come last.
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in catalogue.tenant_tables:
            columns = await connection.fetch(_COLUMNS, table)
            row = {column: by_type[kind] for column, kind in columns} | {
                name: value for name, value in values.items() if name in {column for column, _ in columns}
            }
            names, marks = ", ".join(f'"{name}"' for name in row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
            await connection.execute(
                f"INSERT INTO pool.{table} ({names}) VALUES ({marks})", *(row | {"tenant_id": tenant_id}).values()
            )


async def fingerprint(connection: asyncpg.Connection, catalogue: DataCatalogue, tenant_id: UUID) -> dict[str, str]:
    """A hash of the tenant's rows in each of these tables."""
    return {
        table: await connection.fetchval(
            f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM pool.{table} t WHERE tenant_id = $1", tenant_id
        )
        for table in catalogue.tenant_tables
    }

"""Rows of the vault. Statements run as the system role, and name the tenant."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry import uuid7

# Sorted by key, so that two processes that know the same values wait for each other in one order.
_RESOLVE = text(
    """
    WITH asked AS (
        SELECT * FROM unnest(CAST(:tenants AS uuid[]), CAST(:hashes AS bytea[]), CAST(:tokens AS text[]),
                             CAST(:texts AS text[])) AS each (tenant_id, value_hash, token, value)),
    added AS (
        INSERT INTO pool.token (tenant_id, token, value_hash, value, created_at)
        SELECT tenant_id, token, value_hash, value, clock_timestamp() FROM asked WHERE value IS NOT NULL
         ORDER BY tenant_id, value_hash
        ON CONFLICT (tenant_id, value_hash) DO NOTHING RETURNING tenant_id, value_hash, token)
    SELECT tenant_id, value_hash, token FROM added
     UNION ALL
    SELECT known.tenant_id, known.value_hash, known.token
      FROM asked JOIN pool.token AS known USING (tenant_id, value_hash)
    """
)
_READ = text("SELECT token, value, created_at FROM pool.token WHERE tenant_id = :tenant AND token = :token")
_NOTE = text(
    """
    INSERT INTO pool.token_reading (tenant_id, id, token, read_by, read_at)
    VALUES (:tenant, :id, :token, :by, clock_timestamp())
    """
)
_READINGS = text(
    """
    SELECT id, token, read_by, read_at FROM pool.token_reading
     WHERE tenant_id = :tenant AND (CAST(:token AS text) IS NULL OR token = :token) AND id < :before
     ORDER BY id DESC LIMIT :limit
    """
)
_ERASE = text("DELETE FROM pool.token WHERE tenant_id = :tenant AND value = ANY(CAST(:texts AS text[]))")


class Asked(NamedTuple):
    """A value that needs a token: with its text, `token` is a new one if there is none yet."""

    tenant_id: UUID
    value_hash: bytes
    token: str
    text: str | None


async def resolve_tokens(session: AsyncSession, asked: Collection[Asked]) -> dict[tuple[UUID, bytes], str]:
    """The tokens that these values have, those that are new among them.

    One that another transaction added a moment ago may be missing, and is there the next time. The caller commits.
    """
    found = await session.execute(
        _RESOLVE,
        {
            "tenants": [each.tenant_id for each in asked],
            "hashes": [each.value_hash for each in asked],
            "tokens": [each.token for each in asked],
            "texts": [each.text for each in asked],
        },
    )
    return {(row.tenant_id, bytes(row.value_hash)): row.token for row in found}


async def read_token(session: AsyncSession, tenant_id: UUID, token: str, *, by: str) -> Row[Any] | None:
    """What a token stands for; that it was read, and by whom, is noted in the caller's transaction."""
    row = (await session.execute(_READ, {"tenant": tenant_id, "token": token})).one_or_none()
    if row is not None:
        await session.execute(_NOTE, {"tenant": tenant_id, "id": uuid7(), "token": token, "by": by})
    return row


async def find_readings(
    session: AsyncSession, tenant_id: UUID, token: str | None, *, before: UUID, limit: int
) -> Sequence[Row[Any]]:
    """Who read tokens of a tenant, the newest first."""
    asked = {"tenant": tenant_id, "token": token, "before": before, "limit": limit}
    return (await session.execute(_READINGS, asked)).all()


async def erase_tokens(connection: AsyncConnection, tenant_id: UUID, texts: Collection[str]) -> int:
    """Forgets which tokens stand for these values; how many there were. The caller commits."""
    return (await connection.execute(_ERASE, {"tenant": tenant_id, "texts": list(texts)})).rowcount

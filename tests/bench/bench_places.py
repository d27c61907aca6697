"""What a place of its own costs a new tenant: handed over warm by a rename, and made on the spot.

The service is the app with its own migrations. The limit beside a hand-over is the bare rename in the same run, on one
connection; the rest is a connection, a lock, the ledger and a commit.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from uuid import uuid4

import asyncpg
from report import Row, Servers, percentiles, row

from tenantry import Isolation, Placement, uuid7
from tenantry.database import Places
from tenantry.testing import ServiceDatabase
from tenantry.testing._databases import ServiceTemplates

SERVICE = "app"
STORE = "primary"
COUNTS = {Isolation.SCHEMA: 25, Isolation.DATABASE: 6}
RENAMES = 25


async def run(servers: Servers) -> list[Row]:
    """Each kind of place, warm and on the spot, one tenant after the other."""
    rows = []
    async with _database(servers) as database:
        for isolation, count in COUNTS.items():
            cold = Places(SERVICE, database.settings(warm_schemas=0, warm_databases=0))
            made = await _each(database, count, cold, isolation)
            warm = Places(SERVICE, database.settings(**{f"warm_{isolation}s": count, _other(isolation): 0}))
            began = time.perf_counter()
            await warm.refill()
            refill = (time.perf_counter() - began) / count
            handed = await _each(database, count, warm, isolation)
            renamed = await _renames(database, isolation)
            rows += [
                row(f"place_{isolation}_on_the_spot", median(made) * 1e3, "ms", **_milliseconds(made)),
                row(
                    f"place_{isolation}_handed_over",
                    median(handed) * 1e3,
                    "ms",
                    limit=median(renamed) * 1e3,
                    refill_ms=round(refill * 1e3, 1),
                    faster=round(median(made) / median(handed), 1),
                    **_milliseconds(handed),
                ),
            ]
    return rows


def _in(isolation: Isolation) -> Placement:
    return Placement(STORE, isolation)


def _other(isolation: Isolation) -> str:
    return "warm_databases" if isolation is Isolation.SCHEMA else "warm_schemas"


async def _each(database: ServiceDatabase, count: int, places: Places, isolation: Isolation) -> list[float]:
    """Seconds for each of `count` new tenants."""
    took = []
    for _ in range(count):
        tenant_id = uuid7()
        database.owns_database_of(tenant_id)
        began = time.perf_counter()
        await places.provide(tenant_id, _in(isolation))
        took.append(time.perf_counter() - began)
    return took


async def _renames(database: ServiceDatabase, isolation: Isolation) -> list[float]:
    """Seconds for each bare rename of an empty place, to and fro."""
    kind, name = isolation.value.upper(), f"bench_{uuid4().hex}"
    connection = await asyncpg.connect(database.urls.provisioner)
    took = []
    try:
        await connection.execute(f"CREATE {kind} {name}")
        for number in range(RENAMES):
            old, new = (name, f"{name}_x") if number % 2 == 0 else (f"{name}_x", name)
            began = time.perf_counter()
            await connection.execute(f"ALTER {kind} {old} RENAME TO {new}")
            took.append(time.perf_counter() - began)
        await connection.execute(f"DROP {kind} IF EXISTS {name}")
        await connection.execute(f"DROP {kind} IF EXISTS {name}_x")
    finally:
        await connection.close()
    return took


def _milliseconds(took: list[float]) -> dict[str, float]:
    return {f"{name}_ms": round(value * 1e3, 2) for name, value in percentiles(took).items()}


@asynccontextmanager
async def _database(servers: Servers) -> AsyncIterator[ServiceDatabase]:
    templates = ServiceTemplates(servers.postgres)
    database = templates.create(SERVICE)
    try:
        yield database
    finally:
        await database.drop()
        templates.drop()

"""Raw events as they lie in PostgreSQL, and the archive that a test keeps of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import duckdb
from obstore.store import LocalStore

from tenantry.database import Databases
from tenantry.testing import ServiceDatabase
from usage_service.archive.archivist import Archivist
from usage_service.archive.store import ArchiveStore
from usage_service.metering.days import OwnedDays
from usage_service.retention.keeper import RetentionKeeper
from usage_service.retention.policy import Terms

DAY = date(2026, 3, 1)
TERMS = Terms(
    archive_after=timedelta(days=1),
    raw=timedelta(days=40),
    identities=timedelta(days=36),
    archive=timedelta(days=396),
    dead_letters=timedelta(days=396),
)
COLUMNS = (
    "tenant_id",
    "identity",
    "event_time",
    "received_at",
    "kafka_offset",
    "digest",
    "catalogue_version",
    "day",
    "kafka_partition",
    "source",
    "event_id",
    "type",
    "data",
)


@dataclass
class SetClock:
    """Real time as a test wants it."""

    moment: datetime

    def now(self) -> datetime:
        return self.moment


@dataclass
class ArchiveWorld:
    """A database with days of events, a directory for the archive, and a clock."""

    database: ServiceDatabase
    databases: Databases
    directory: Path
    clock: SetClock = field(default_factory=lambda: SetClock(datetime(2026, 3, 3, 12, tzinfo=UTC)))
    part_rows: int = 1_000

    @property
    def store(self) -> ArchiveStore:
        return ArchiveStore(LocalStore(self.directory), self.directory)

    def archivist(self, store: ArchiveStore | None = None) -> Archivist:
        return Archivist(self.databases.system, store or self.store, part_rows=self.part_rows)

    def keeper(self, archivist: Archivist | None = None) -> RetentionKeeper:
        return RetentionKeeper(
            self.databases.system,
            archivist or self.archivist(),
            TERMS,
            self.clock,
            migrator_url=self.database.urls.migrator,
        )

    async def put_events(
        self,
        tenant_id: UUID,
        numbers: Sequence[int],
        *,
        day: date = DAY,
        received: datetime | None = None,
        data: dict[str, Any] | None = None,
        kind: str = "http.request",
    ) -> None:
        """Events e-<number> a second apart, received together, by default at noon of their day."""
        await OwnedDays(self.database.urls.migrator).ensure([day])
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        rows = [
            (
                tenant_id,
                UUID(int=(tenant_id.int ^ (number << 16)) % 2**128),
                start + timedelta(seconds=number % 86_400, microseconds=number % 7),
                received or start + timedelta(hours=12),
                number,
                (number * 2_654_435_761) % 2**63 - 2**62,
                1,
                day,
                number % 4,
                "tests",
                f"e-{number}",
                kind,
                json.dumps(data or {"n": number, "text": "grün"}, ensure_ascii=False),
            )
            for number in numbers
        ]
        async with self.database.connect("system") as connection:
            await connection.executemany(
                f"INSERT INTO pool.usage_event ({', '.join(COLUMNS)}) VALUES "
                f"({', '.join(f'${n}' for n in range(1, len(COLUMNS) + 1))})",
                rows,
            )

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        async with self.database.connect("system") as connection:
            return await connection.fetch(statement, *values)

    async def rows(self) -> list[tuple[Any, ...]]:
        """What PostgreSQL has, sorted."""
        return sorted(map(tuple, await self.fetch(f"SELECT {', '.join(COLUMNS)} FROM pool.usage_event")))

    def archived(self) -> list[tuple[Any, ...]]:
        """What the archive has, sorted, as anybody would read it."""
        exact = {"tenant_id": "tenant_id::UUID"} | {name: f"epoch_us({name})" for name in ("event_time", "received_at")}
        names = ", ".join(exact.get(name, name) for name in COLUMNS)
        with duckdb.connect() as engine:
            found = engine.execute(
                f"SELECT {names} FROM read_parquet('{self.directory}/usage-events/v1/*/*.parquet')"
            ).fetchall()
        return sorted((row[0], UUID(bytes=row[1]), _moment(row[2]), _moment(row[3]), *row[4:]) for row in found)

    async def stored(self, day: date = DAY) -> bool:
        """Whether PostgreSQL still has the day."""
        [row] = await self.fetch(
            "SELECT to_regclass('pool.usage_event_' || to_char($1::date, 'YYYYMMDD')) IS NOT NULL", day
        )
        return bool(row[0])

    async def manifest(self) -> list[asyncpg.Record]:
        return await self.fetch("SELECT * FROM system.archive_object ORDER BY day, received_until, id")

    async def files(self) -> list[Path]:
        return await asyncio.to_thread(lambda: sorted(each for each in self.directory.rglob("*") if each.is_file()))


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)

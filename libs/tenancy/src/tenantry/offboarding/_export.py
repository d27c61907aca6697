r"""A tenant's rows as files that people and programs can read: a gzipped file of JSON lines a table, and a manifest.

Each table is read in one transaction and its file is whole or absent; a killed export goes on with the next table. The
format of a line is the row as `to_jsonb` writes it: bytea as \x and hex digits, numbers with all their digits.
"""

import gzip
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry._tenant import Tenant
from tenantry.database import Databases, DataCatalogue, Retention
from tenantry.database._names import quote
from tenantry.offboarding import _tasks as tasks
from tenantry.offboarding._holdings import Holding
from tenantry.offboarding._places import Place, find_places, place_named, transaction
from tenantry.offboarding._plan import PlannedTable, plan_place
from tenantry.offboarding._tasks import TableProgress, Task

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_ROWS_AT_ONCE = 500
FORMAT = "tenantry-export/1"


class Export:
    """The export of one service into a blob store; files lie below `<tenant>/<task>/<service>/`."""

    def __init__(
        self,
        databases: Databases,
        catalogue: DataCatalogue,
        store: "ObjectStore",
        holdings: Sequence[Holding] = (),
    ) -> None:
        self._databases = databases
        self._catalogue = catalogue
        self._store = store
        self._holdings = {holding.label: holding for holding in holdings}

    async def advance(
        self, session: AsyncSession, task: Task, tenant: Tenant, now: datetime
    ) -> Mapping[str, Any] | None:
        """Write a table's file; the result once the manifest is written, else None."""
        known = await tasks.progress(session, task)
        if not known:
            await tasks.store_plan(session, task, await self._plan(tenant))
            return None
        for table in known:
            if table.rows_after is None:
                rows, detail = await self._write_table(task, tenant, table)
                await tasks.set_rows_after(session, task, table, rows, detail)
                return None
        return await self._write_manifest(task, tenant, known, now)

    async def _plan(self, tenant: Tenant) -> list[TableProgress]:
        found: list[TableProgress] = []
        for place in await find_places(self._databases, self._catalogue, tenant.id):
            async with transaction(self._databases, place) as connection:
                planned = await plan_place(connection, self._catalogue, tenant, place)
            for table in planned:
                if table.exported:
                    detail = {"place": place.label, "table": table.label}
                    label = place.label_of(table.label)
                    found.append(TableProgress(len(found), label, table.retention, 0, None, detail))
        # After the tables: what moves from one of them to a holding meanwhile is written twice rather than never.
        for label in self._holdings:
            found.append(TableProgress(len(found), label, Retention.ERASE, 0, None, {"holding": label}))
        return found

    async def _write_table(self, task: Task, tenant: Tenant, progress: TableProgress) -> tuple[int, Mapping[str, Any]]:
        if "holding" in progress.detail:
            lines = self._holdings[progress.detail["holding"]].lines(tenant.id)
            return await self._put(
                task, f"{progress.position:03}-{progress.label}.ndjson.gz", partial(_write_lines, lines)
            )
        places = await find_places(self._databases, self._catalogue, tenant.id)
        place = place_named(places, progress.detail["place"])
        if place is None:
            return 0, {"file": None}
        label = progress.detail["table"]
        return await self._put(
            task, f"{progress.position:03}-{label}.ndjson.gz", partial(self._write_rows, place, tenant, label)
        )

    async def _write_rows(self, place: Place, tenant: Tenant, label: str, file: Path) -> int:
        async with transaction(self._databases, place) as connection:
            planned = await plan_place(connection, self._catalogue, tenant, place)
            table = next(each for each in planned if each.label == label)
            return await _write_rows(connection, table, file)

    async def _put(
        self, task: Task, file_name: str, write: Callable[[Path], Awaitable[int]]
    ) -> tuple[int, Mapping[str, Any]]:
        """Put a file that `write` has written; its rows and what the manifest says of it."""
        import obstore  # noqa: PLC0415 - the extra

        name = self._name(task, file_name)
        with tempfile.TemporaryDirectory(prefix="tenantry-export-") as directory:
            file = Path(directory) / "rows"
            rows = await write(file)
            with file.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            await obstore.put_async(self._store, name, file)
            return rows, {"file": name, "sha256": digest, "bytes": file.stat().st_size}

    async def _write_manifest(
        self, task: Task, tenant: Tenant, known: list[TableProgress], now: datetime
    ) -> Mapping[str, Any]:
        import obstore  # noqa: PLC0415 - the extra

        manifest = {
            "format": FORMAT,
            "service": self._catalogue.service,
            "tenant_id": str(tenant.id),
            "external_id": tenant.external_id,
            "slug": tenant.slug,
            "requested_at": task.created_at.isoformat(),
            "finished_at": now.isoformat(),
            "catalogue_digest": task.catalogue_digest,
            "tables": [
                {
                    "table": table.label,
                    "rows": table.rows_after,
                    "file": table.detail.get("file"),
                    "sha256": table.detail.get("sha256"),
                    "bytes": table.detail.get("bytes"),
                }
                for table in known
            ],
        }
        name = self._name(task, "manifest.json")
        await obstore.put_async(self._store, name, json.dumps(manifest, indent=2).encode())
        return {"manifest": name, "catalogue_digest": task.catalogue_digest, "tables": manifest["tables"]}

    def _name(self, task: Task, file: str) -> str:
        return f"{task.tenant_id}/{task.id}/{self._catalogue.service}/{file}"


def export_task_of(name: str) -> UUID | None:
    """The task that a file of a store belongs to, which is the idempotency key of its request; None: to no export."""
    try:
        tenant_id, task_id, _service, _file = name.split("/")
        UUID(tenant_id)
        return UUID(task_id)
    except ValueError:
        return None


async def _write_rows(connection: AsyncConnection, table: PlannedTable, file: Path) -> int:
    key = ", ".join(quote(column) for column in table.primary_key)
    statement = text(
        f"SELECT to_jsonb(row)::text FROM {table.qualified} AS row "  # noqa: S608 - quoted names
        f"WHERE {quote(table.column)} = :key ORDER BY {key}"
    ).execution_options(yield_per=_ROWS_AT_ONCE)
    count = 0
    with _packed(file) as out:
        async with connection.stream(statement, {"key": table.key}) as rows:
            async for part in rows.scalars().partitions():
                out.write("".join(f"{line}\n" for line in part).encode())
                count += len(part)
    return count


async def _write_lines(lines: AsyncIterator[bytes], file: Path) -> int:
    count = 0
    with _packed(file) as out:
        async for line in lines:
            out.write(line)
            count += 1
    return count


@contextmanager
def _packed(file: Path) -> Iterator[gzip.GzipFile]:
    # mtime 0: the same rows make the same file.
    with file.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0, filename="") as out:
        yield out

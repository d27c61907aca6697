"""`tenantry usage import`: files that others wrote, brought in as usage."""

import asyncio
import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from tenantry.cli import Group, Misused
from usage_service.commands._api import connect
from usage_service.commands._files import Source, open_source
from usage_service.commands._importing import AT_ONCE, import_lines
from usage_service.commands._ingest import Ingest
from usage_service.commands._mapping import EPOCHS, Column, RowMapping, TenantRule
from usage_service.commands._progress import Journal, Tally, Telling
from usage_service.commands._readers import (
    ACCESS_COLUMNS,
    Read,
    read_access_log,
    read_csv,
    read_dead_letters,
    read_jsonl,
    read_parquet,
)

app = typer.Typer(cls=Group, no_args_is_help=True, help="Bring in files of usage.")

_NOT_ALL: Final = 1

File = Annotated[Path, typer.Argument(help="Plain, gzip or zstd; - reads standard input.")]
ParquetFile = Annotated[Path, typer.Argument(help="- reads standard input.")]
Tenant = Annotated[str | None, typer.Option(help="Id or external id of the tenant of all events.")]
TenantColumn = Annotated[str | None, typer.Option(help="The column that says whose an event is.")]
TenantPattern = Annotated[
    str | None, typer.Option(help="A regular expression; its one group, found in that column, is the tenant.")
]
TenantMap = Annotated[
    Path | None, typer.Option(help="A CSV of two columns without names: what that column says, and the tenant.")
]
Kind = Annotated[str, typer.Option("--type", help="The events' type.")]
Origin = Annotated[str | None, typer.Option("--source", help="The events' source.")]
Time = Annotated[str, typer.Option("--time", help="The column of the time; without an offset it is UTC.")]
Epoch = Annotated[str | None, typer.Option(help="The time is a number since 1970 in this unit: s, ms or us.")]
Id = Annotated[
    str | None, typer.Option("--id", help="The column of the id; without it, the file's digest and the line's number.")
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="[NAME=]COLUMN[:TYPE] of what becomes data; TYPE is text, integer, number, boolean or json. "
        "May be repeated; without it all other columns, as they are.",
    ),
]
AcceptLate = Annotated[
    bool, typer.Option("--accept-late", help="History: accept events of any age. Needs an operator's credentials.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be refused, and why.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the same import was cut.")]
Strict = Annotated[bool, typer.Option("--strict", help="End with code 1 also where lines were skipped.")]
AtOnce = Annotated[int, typer.Option("--concurrency", min=1, max=32, help="Requests at a time.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print progress and the summary as JSON, a line each.")]


@app.command("access-log")
def import_access_log(
    file: File,
    *,
    tenant: Tenant = None,
    tenant_column: TenantColumn = None,
    tenant_pattern: TenantPattern = None,
    tenant_map: TenantMap = None,
    kind: Kind = "http.request",
    origin: Origin = None,
    data: Data = None,
    accept_late: AcceptLate = False,
    dry_run: DryRun = False,
    resume: Resume = False,
    strict: Strict = False,
    concurrency: AtOnce = AT_ONCE,
    as_json: AsJson = False,
) -> None:
    """Import the requests of an access log in common or combined format.

    Its columns are address, time, method, path, status and bytes; all but the first two become data.
    """
    mapping = RowMapping(
        tenant=_rule(tenant, tenant_column, tenant_pattern, tenant_map),
        type=kind,
        source=origin or "import/access-log",
        time="time",
        columns=_columns(data) or tuple(Column(name, name) for name in ACCESS_COLUMNS),
    )
    mapping.check(["address", "time", *ACCESS_COLUMNS])
    _import(
        file,
        lambda source: read_access_log(source, mapping),
        mapping,
        accept_late=accept_late,
        dry_run=dry_run,
        resume=resume,
        strict=strict,
        at_once=concurrency,
        as_json=as_json,
    )


@app.command("csv")
def import_csv(
    file: File,
    *,
    kind: Kind,
    time: Time,
    epoch: Epoch = None,
    id_column: Id = None,
    data: Data = None,
    tenant: Tenant = None,
    tenant_column: TenantColumn = None,
    tenant_pattern: TenantPattern = None,
    tenant_map: TenantMap = None,
    origin: Origin = None,
    delimiter: Annotated[str, typer.Option(help="One character.")] = ",",
    accept_late: AcceptLate = False,
    dry_run: DryRun = False,
    resume: Resume = False,
    strict: Strict = False,
    concurrency: AtOnce = AT_ONCE,
    as_json: AsJson = False,
) -> None:
    """Import the lines of a CSV whose first line has the names of its columns."""
    if len(delimiter) != 1:
        raise Misused("--delimiter is one character")
    mapping = RowMapping(
        tenant=_rule(tenant, tenant_column, tenant_pattern, tenant_map),
        type=kind,
        source=origin or "import/csv",
        time=time,
        epoch=_epoch(epoch),
        id=id_column,
        columns=_columns(data),
    )
    _import(
        file,
        lambda source: read_csv(source, mapping, delimiter=delimiter),
        mapping,
        delimiter,
        accept_late=accept_late,
        dry_run=dry_run,
        resume=resume,
        strict=strict,
        at_once=concurrency,
        as_json=as_json,
    )


@app.command("parquet")
def import_parquet(
    file: ParquetFile,
    *,
    kind: Kind,
    time: Time,
    epoch: Epoch = None,
    id_column: Id = None,
    data: Data = None,
    tenant: Tenant = None,
    tenant_column: TenantColumn = None,
    tenant_pattern: TenantPattern = None,
    tenant_map: TenantMap = None,
    origin: Origin = None,
    accept_late: AcceptLate = False,
    dry_run: DryRun = False,
    resume: Resume = False,
    strict: Strict = False,
    concurrency: AtOnce = AT_ONCE,
    as_json: AsJson = False,
) -> None:
    """Import the rows of a Parquet file."""
    mapping = RowMapping(
        tenant=_rule(tenant, tenant_column, tenant_pattern, tenant_map),
        type=kind,
        source=origin or "import/parquet",
        time=time,
        epoch=_epoch(epoch),
        id=id_column,
        columns=_columns(data),
    )
    _import(
        file,
        lambda source: read_parquet(source, mapping),
        mapping,
        accept_late=accept_late,
        dry_run=dry_run,
        resume=resume,
        strict=strict,
        at_once=concurrency,
        as_json=as_json,
    )


@app.command("jsonl")
def import_jsonl(
    file: File,
    *,
    kind: Annotated[str, typer.Option("--type", help="The type of events that have none.")] = "",
    time: Time = "time",
    epoch: Epoch = None,
    id_column: Id = None,
    data: Data = None,
    tenant: Tenant = None,
    tenant_column: TenantColumn = None,
    tenant_pattern: TenantPattern = None,
    tenant_map: TenantMap = None,
    origin: Origin = None,
    accept_late: AcceptLate = False,
    dry_run: DryRun = False,
    resume: Resume = False,
    strict: Strict = False,
    concurrency: AtOnce = AT_ONCE,
    as_json: AsJson = False,
) -> None:
    """Import JSON objects, one a line: CloudEvents, or rows that are mapped as those of a CSV are.

    A CloudEvent keeps what it has; without --tenant and --tenant-column it has a subject.
    """
    named = tenant is not None or tenant_column is not None
    mapping = RowMapping(
        tenant=_rule(tenant, tenant_column, tenant_pattern, tenant_map) if named else TenantRule(column="subject"),
        type=kind,
        source=origin or "import/jsonl",
        time=time,
        epoch=_epoch(epoch),
        id=id_column,
        columns=_columns(data),
    )
    _import(
        file,
        lambda source: read_jsonl(source, mapping),
        mapping,
        accept_late=accept_late,
        dry_run=dry_run,
        resume=resume,
        strict=strict,
        at_once=concurrency,
        as_json=as_json,
    )


@app.command("dead-letters")
def import_dead_letters(
    file: File,
    *,
    accept_late: Annotated[bool, typer.Option(help="Whatever their age. Needs an operator's credentials.")] = True,
    dry_run: DryRun = False,
    resume: Resume = False,
    strict: Strict = False,
    concurrency: AtOnce = AT_ONCE,
    as_json: AsJson = False,
) -> None:
    """Send the events of dead letters, one a line as the API lists them; put right by hand where that is needed.

    The letters of this installation are better replayed where they are: then they are marked.
    """
    _import(
        file,
        read_dead_letters,
        accept_late=accept_late,
        dry_run=dry_run,
        resume=resume,
        strict=strict,
        at_once=concurrency,
        as_json=as_json,
    )


def _import(
    file: Path,
    read: Callable[[Source], Read],
    *options: object,
    accept_late: bool,
    dry_run: bool,
    resume: bool,
    strict: bool,
    at_once: int,
    as_json: bool,
) -> None:
    """Runs an import to its end and ends the command with 1 where an event was refused."""
    tally = Tally()

    async def run(source: Source, telling: Telling) -> None:
        journal = None if dry_run else Journal(source, [read.__qualname__, *options])
        first = journal.next_line() if journal is not None and resume else 0
        async with connect() as api:
            ingest = Ingest(api, accept_late=accept_late, dry_run=dry_run)
            await import_lines(read(source), ingest, tally, telling, journal, first=first, at_once=at_once)

    with open_source(file) as source, Telling(source, as_json=as_json) as telling:
        try:
            asyncio.run(run(source, telling))
        finally:
            telling.end(tally, dry_run=dry_run)
    if tally.refused or (strict and tally.skipped):
        raise typer.Exit(_NOT_ALL)


def _rule(tenant: str | None, column: str | None, pattern: str | None, table: Path | None) -> TenantRule:
    try:
        compiled = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise Misused(f"--tenant-pattern: {error}") from None
    return TenantRule(tenant, column, compiled, None if table is None else _table(table))


def _table(file: Path) -> Mapping[str, str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = [row for row in csv.reader(text) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Misused(f"{file} cannot be read: {error}") from None
    if any(len(row) != 2 for row in rows):
        raise Misused(f"{file}: each line has two columns: a value, and its tenant")
    return {value.strip(): tenant.strip() for value, tenant in rows}


def _columns(data: list[str] | None) -> tuple[Column, ...] | None:
    return None if not data else tuple(Column.parse(each) for each in data)


def _epoch(unit: str | None) -> str | None:
    if unit is not None and unit not in EPOCHS:
        raise Misused(f"--epoch is one of {', '.join(EPOCHS)}")
    return unit

"""`tenantry usage import`: files that others wrote, brought in as usage."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tenantry.cli import Group, Misused
from usage_service.commands._files import Source
from usage_service.commands._ingest import Ingest
from usage_service.commands._mapping import Column, RowMapping, TenantRule
from usage_service.commands._options import History, Importing, Row, What, Whose, bundled
from usage_service.commands._readers import (
    ACCESS_COLUMNS,
    Read,
    read_access_log,
    read_csv,
    read_dead_letters,
    read_jsonl,
    read_parquet,
)
from usage_service.commands._running import send_file

app = typer.Typer(cls=Group, no_args_is_help=True, help="Bring in files of usage.")

File = Annotated[Path, typer.Argument(help="Plain, gzip or zstd; - reads standard input.")]
ParquetFile = Annotated[Path, typer.Argument(help="- reads standard input.")]
Kind = Annotated[str, typer.Option("--type", help="The events' type.")]
Time = Annotated[str, typer.Option("--time", help="The column of the time; without an offset it is UTC.")]


@app.command("access-log")
@bundled
def import_access_log(
    file: File, *, whose: Whose, kind: Kind = "http.request", what: What, history: History, sending: Importing
) -> None:
    """Import the requests of an access log in common or combined format.

    Its columns are address, time, method, path, status and bytes; all but the first two become data.
    """
    mapping = RowMapping(
        tenant=whose.rule(),
        type=kind,
        source=what.source or "import/access-log",
        time="time",
        columns=what.columns() or tuple(Column(name, name) for name in ACCESS_COLUMNS),
    )
    mapping.check(["address", "time", *ACCESS_COLUMNS])
    _import(file, lambda source: read_access_log(source, mapping), mapping, history=history, sending=sending)


@app.command("csv")
@bundled
def import_csv(
    file: File,
    *,
    kind: Kind,
    time: Time,
    row: Row,
    whose: Whose,
    delimiter: Annotated[str, typer.Option(help="One character.")] = ",",
    history: History,
    sending: Importing,
) -> None:
    """Import the lines of a CSV whose first line has the names of its columns."""
    if len(delimiter) != 1:
        raise Misused("--delimiter is one character")
    mapping = row.mapping(whose.rule(), kind, time, source="import/csv")
    _import(
        file,
        lambda source: read_csv(source, mapping, delimiter=delimiter),
        mapping,
        delimiter,
        history=history,
        sending=sending,
    )


@app.command("parquet")
@bundled
def import_parquet(
    file: ParquetFile, *, kind: Kind, time: Time, row: Row, whose: Whose, history: History, sending: Importing
) -> None:
    """Import the rows of a Parquet file."""
    mapping = row.mapping(whose.rule(), kind, time, source="import/parquet")
    _import(file, lambda source: read_parquet(source, mapping), mapping, history=history, sending=sending)


@app.command("jsonl")
@bundled
def import_jsonl(
    file: File,
    *,
    kind: Annotated[str, typer.Option("--type", help="The type of events that have none.")] = "",
    time: Time = "time",
    row: Row,
    whose: Whose,
    history: History,
    sending: Importing,
) -> None:
    """Import JSON objects, one a line: CloudEvents, or rows that are mapped as those of a CSV are.

    A CloudEvent keeps what it has; without --tenant and --tenant-column it has a subject.
    """
    rule = whose.rule() if whose.is_said else TenantRule(column="subject")
    mapping = row.mapping(rule, kind, time, source="import/jsonl")
    _import(file, lambda source: read_jsonl(source, mapping), mapping, history=history, sending=sending)


@app.command("dead-letters")
@bundled
def import_dead_letters(
    file: File,
    *,
    accept_late: Annotated[bool, typer.Option(help="Whatever their age. Needs an operator's credentials.")] = True,
    sending: Importing,
) -> None:
    """Send the events of dead letters, one a line as the API lists them; put right by hand where that is needed.

    The letters of this installation are better replayed where they are: then they are marked. They are usage and no
    history: what is not before its tenant's bill_from is billed.
    """
    history = History(accept_late=accept_late, billable=True)
    _import(file, read_dead_letters, history=history, sending=sending)


def _import(file: Path, read: Callable[[Source], Read], *options: object, history: History, sending: Importing) -> None:
    dry_run = sending.dry_run
    ingest = partial(Ingest, accept_late=history.accept_late, billable=history.billable, dry_run=dry_run)
    send_file(file, read, *options, history, sender=ingest, sending=sending, dry_run=dry_run)

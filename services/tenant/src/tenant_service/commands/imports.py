"""`tenantry tenants import`: many tenants from a file."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from tenant_service.commands._arguments import AsJson, IdempotencyKey, noun
from tenant_service.commands._client import connect, new_key
from tenant_service.commands._failures import CommandFailed, Misused, Refused, Unreachable
from tenant_service.commands._output import note, print_json, print_line, print_table

app = noun("")

AT_ONCE: Final = 250
_LABEL: Final = "metadata."


@app.command(name="import")
def import_tenants(
    file: Annotated[Path, typer.Argument(help="CSV with a line of column names, or a JSON document a line; - reads.")],
    *,
    tier: Annotated[str | None, typer.Option(help="Of those whose line names none.")] = None,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Make the tenants of a file; what cannot be made stops no other, and is listed.

    Columns: slug, name, tier, admin_email and, where wanted, external_id, region, isolation, plan, test_clock,
    metadata.LABEL.
    """
    wanted = [{"tier": tier, **document} if tier else document for document in _documents(file)]
    key = new_key(idempotency_key)
    items: list[Mapping[str, Any]] = []
    with connect() as api, _progress(len(wanted)) as progress:
        task = progress.add_task("tenants", total=len(wanted))
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            try:
                answer = api.post("/v1/tenants/batch", {"tenants": some}, idempotency_key=f"{key}-{first}")
            except Refused as failure:
                raise CommandFailed(
                    f"of tenants {first + 1} to {first + len(some)}, counted from 0: {failure.reason}",
                    "put that right and import these and those behind them; none of these is made",
                ) from None
            except Unreachable as failure:
                raise Unreachable(
                    failure.reason, f"repeat the command with --idempotency-key {key}: no tenant is made twice"
                ) from None
            items += answer["items"]
            progress.advance(task, len(some))
    _print(wanted, items, as_json=as_json)


def _print(wanted: Sequence[Mapping[str, Any]], items: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    made = [item["tenant"] for item in items if item["tenant"] is not None]
    refused = [
        (number, document.get("slug"), item["error"])
        for number, (document, item) in enumerate(zip(wanted, items, strict=True), start=1)
        if item["error"] is not None
    ]
    if as_json:
        lines = [{"number": number, "slug": slug, "error": error} for number, slug, error in refused]
        print_json({"created": made, "refused": lines})
    else:
        print_line(f"{len(made)} tenants made; `tenantry tenants list --status requested` shows those under way")
        if refused:
            print_table(("number", "slug", "why"), [(number, slug, error["detail"]) for number, slug, error in refused])
    if refused:
        kinds = sorted({error["type"] for _, _, error in refused})
        raise CommandFailed(
            f"{len(refused)} of {len(items)} tenants were not made: {', '.join(kinds)}",
            "put those lines right and import them again; the others are made",
        )


def _documents(file: Path) -> list[dict[str, Any]]:
    """What the lines say. Raises `Misused` where they cannot be read."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Misused(f"{file} cannot be read: {error}") from None
    documents = list(_json_lines(text) if text.lstrip().startswith("{") else _csv_lines(text))
    if not documents:
        raise Misused(f"{file} names no tenants")
    return documents


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            raise Misused(f"line {number} is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise Misused(f"line {number} is not a JSON object")
        yield document


def _csv_lines(text: str) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for row in reader:
            # Without the marks of too many cells, and of too few.
            if None in row or None in row.values():
                raise Misused(f"line {reader.line_num} has not as many cells as there are columns")
            said = {column.strip(): cell.strip() for column, cell in row.items() if cell.strip()}
            labels = {column.removeprefix(_LABEL): cell for column, cell in said.items() if column.startswith(_LABEL)}
            document: dict[str, Any] = {c: cell for c, cell in said.items() if not c.startswith(_LABEL)}
            yield document | ({"metadata": labels} if labels else {})
    except csv.Error as error:
        raise Misused(f"line {reader.line_num} is not CSV: {error}") from None


def _progress(total: int) -> Progress:
    if total > AT_ONCE:
        note(f"{total} tenants")
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

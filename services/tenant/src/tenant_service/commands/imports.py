"""`tenantry tenants import`: many tenants from a file."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from tenant_service.commands._arguments import AsJson, IdempotencyKey, complete_tiers, noun
from tenant_service.commands._client import ControlPlane, connect, new_key
from tenant_service.commands._failures import Refused
from tenant_service.commands._output import note, print_json, print_line, print_table
from tenantry.cli import CommandFailed, Misused, Unreachable

app = noun("")

AT_ONCE: Final = 250
_LABEL: Final = "metadata."
_UNREADABLE: Final = "unreadable-line"


@dataclass(frozen=True, slots=True)
class _Wanted:
    line: int
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _NotMade:
    line: int
    slug: str | None
    type: str
    why: str

    @classmethod
    def of(cls, wanted: _Wanted, *, type: str, why: str) -> "_NotMade":  # noqa: A002 - the problem's word
        slug = wanted.document.get("slug")
        return cls(wanted.line, slug if isinstance(slug, str) else None, type, why)


@app.command(name="import")
def import_tenants(
    file: Annotated[Path, typer.Argument(help="CSV with a line of column names, or a JSON document a line; - reads.")],
    *,
    tier: Annotated[
        str | None, typer.Option(help="Of those whose line names none.", autocompletion=complete_tiers)
    ] = None,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Make the tenants of a file; what cannot be made stops no other, and is listed with its line.

    Columns: slug, name, tier, admin_email and, where wanted, external_id, region, isolation, plan, test_clock,
    metadata.LABEL.
    """
    wanted: list[_Wanted] = []
    not_made: list[_NotMade] = []
    for each in _lines(file):
        if isinstance(each, _NotMade):
            not_made.append(each)
        else:
            wanted.append(_Wanted(each.line, {"tier": tier, **each.document}) if tier else each)
    if not wanted and not not_made:
        raise Misused(f"{file} names no tenants")
    key = new_key(idempotency_key)
    made: list[Mapping[str, Any]] = []
    with connect() as api, _progress(len(wanted)) as progress:
        task = progress.add_task("tenants", total=len(wanted))
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            try:
                done = _make(api, some, f"{key}-{first}")
            except Unreachable as failure:
                raise Unreachable(
                    failure.reason, f"repeat the command with --idempotency-key {key}: no tenant is made twice"
                ) from None
            made += done[0]
            not_made += done[1]
            progress.advance(task, len(some))
    _print(made, sorted(not_made, key=lambda each: each.line), as_json=as_json)


def _make(api: ControlPlane, wanted: Sequence[_Wanted], key: str) -> tuple[list[Mapping[str, Any]], list[_NotMade]]:
    """Those that are made, and those that are not. Raises `CommandFailed` where the service takes none of them.

    The service refuses a request in which something is malformed as a whole, and says where: the rest is sent again,
    under a key that the same file leads to again.
    """
    not_made: list[_NotMade] = []
    left, attempt = list(wanted), 0
    while left:
        documents = [each.document for each in left]
        attempt_key = f"{key}-{attempt}" if attempt else key
        try:
            answer = api.post("/v1/tenants/batch", {"tenants": documents}, idempotency_key=attempt_key)
        except Refused as failure:
            faulty = _faults(failure, len(left))
            if not faulty:
                _give_up(failure, left)
            not_made += [_NotMade.of(left[at], type=failure.type, why="; ".join(why)) for at, why in faulty.items()]
            left = [each for at, each in enumerate(left) if at not in faulty]
            attempt += 1
            continue
        pairs = list(zip(left, answer["items"], strict=True))
        not_made += [
            _NotMade.of(each, type=item["error"]["type"], why=item["error"]["detail"])
            for each, item in pairs
            if item["error"] is not None
        ]
        return [item["tenant"] for _, item in pairs if item["tenant"] is not None], not_made
    return [], not_made


def _faults(failure: Refused, count: int) -> dict[int, list[str]]:
    """What is wrong with which of the tenants that were sent, by position; empty where it is not about single ones."""
    faults: dict[int, list[str]] = {}
    if failure.status != HTTPStatus.UNPROCESSABLE_ENTITY:
        return faults
    for fault in failure.faults:
        match fault.get("loc"):
            case ["body", "tenants", int(position), *names] if 0 <= position < count:
                name = ".".join(map(str, names))
                text = str(fault.get("msg", ""))
                faults.setdefault(position, []).append(f"{name}: {text}" if name else text)
    return faults


def _give_up(failure: Refused, wanted: Sequence[_Wanted]) -> NoReturn:
    raise CommandFailed(
        f"of the lines {wanted[0].line} to {wanted[-1].line} none is made: {failure.reason}",
        failure.next_step or "put that right and import these and those behind them; those before them are made",
    ) from None


def _print(made: Sequence[Mapping[str, Any]], not_made: Sequence[_NotMade], *, as_json: bool) -> None:
    if as_json:
        refused = [
            {"line": each.line, "slug": each.slug, "error": {"type": each.type, "detail": each.why}}
            for each in not_made
        ]
        print_json({"created": made, "refused": refused})
    else:
        print_line(f"{len(made)} tenants made; `tenantry tenants list --status requested` shows those under way")
        if not_made:
            print_table(("line", "slug", "why"), [(each.line, each.slug, each.why) for each in not_made])
    if not_made:
        kinds = sorted({each.type for each in not_made})
        raise CommandFailed(
            f"{len(not_made)} of {len(made) + len(not_made)} tenants were not made: {', '.join(kinds)}",
            "put those lines right and import them again; the others are made",
        )


def _lines(file: Path) -> Iterator[_Wanted | _NotMade]:
    """What the lines say, each by itself. Raises `Misused` where the file cannot be read."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Misused(f"{file} cannot be read: {error}") from None
    return _json_lines(text) if text.lstrip().startswith("{") else _csv_lines(text)


def _json_lines(text: str) -> Iterator[_Wanted | _NotMade]:
    # Not splitlines: a string of JSON may hold other characters that end a line.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            yield _NotMade(number, None, _UNREADABLE, f"is not JSON: {error}")
            continue
        if isinstance(document, dict):
            yield _Wanted(number, document)
        else:
            yield _NotMade(number, None, _UNREADABLE, "is not a JSON object")


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _csv_lines(text: str) -> Iterator[_Wanted | _NotMade]:
    """Each with the line on which it begins. Raises `Misused` where the columns have no names."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if not columns:
                raise Misused(f"the line of column names is not CSV: {error}") from None
            until = "" if line == reader.line_num else f", up to line {reader.line_num}"
            yield _NotMade(line, None, _UNREADABLE, f"is not CSV{until}: {error}")
            continue
        if cells is None:
            return
        if not columns:
            columns = [column.strip() for column in cells]
        elif len(cells) == len(columns):
            yield _Wanted(line, _document(zip(columns, map(str.strip, cells), strict=True)))
        elif cells:
            yield _NotMade(line, None, _UNREADABLE, "has not as many cells as there are columns")


def _document(said: Iterable[tuple[str, str]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for column, cell in said:
        if cell and column.startswith(_LABEL):
            document.setdefault("metadata", {})[column.removeprefix(_LABEL)] = cell
        elif cell:
            document[column] = cell
    return document


def _progress(total: int) -> Progress:
    if total > AT_ONCE:
        note(f"{total} tenants")
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

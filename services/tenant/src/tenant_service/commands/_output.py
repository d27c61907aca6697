"""How answers are printed: JSON or tables on standard output, what is said beside them on standard error."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tenantry.cli import printable

# Into a pipe a row is one line, however long, so that it can be searched.
_PIPE_WIDTH: Final = 500


def print_json(data: object) -> None:
    sys.stdout.write(json.dumps(data, ensure_ascii=not _speaks_unicode(), indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(printable, row))
    _console().print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """One thing, a line for each of its fields."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name.replace("_", " "), printable(value))
    _console().print(table)


def print_line(text: object) -> None:
    _console().print(printable(text), soft_wrap=True)


def note(text: str) -> None:
    """Say something beside the answer."""
    Console(stderr=True).print(printable(text), soft_wrap=True, style="dim")


def print_page(page: Mapping[str, Any], columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A list's page as a table, and whether there is more."""
    print_table(columns, rows)
    if page["next_cursor"] is not None:
        note("there are more: --all, or --limit")


def print_differences(items: Iterable[Mapping[str, Any]]) -> None:
    """What one version has that another has not, value by value."""
    rows = [(each["op"], each["pointer"], each["before"], each["after"]) for each in items]
    print_table(("what", "value at", "before", "after"), rows)


def _console() -> Console:
    # Made when it is needed: a test's standard output is not the one of the import.
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"

"""Figures as JSON, CSV, an Arrow stream or a Parquet file, by what a client accepts.

Columns are the meter where several were asked, the window, the dimensions, and the value: a text in JSON and CSV, and a
decimal in Arrow and Parquet, of 38 digits where all fit and of 76 otherwise. A dimension that is called as another
column is has `group_` before its name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from tenantry import TenantryError
from usage_service.domain.instants import rfc3339
from usage_service.domain.quantities import RATIO_DIGITS
from usage_service.queries.figures import Figure

if TYPE_CHECKING:
    import pyarrow as pa


class Format(StrEnum):
    JSON = "application/json"
    CSV = "text/csv"
    ARROW = "application/vnd.apache.arrow.stream"
    PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True, slots=True)
class Table:
    """One meter's figures; they are not `complete` while a backfill of the meter has to count some of their events."""

    meter: str
    figures: Sequence[Figure]
    complete: bool


class TooLargeForColumns(TenantryError):
    """A value has more digits than a decimal of Arrow does."""

    status = 406
    type = "too-large-for-columns"
    title = "A value does not fit into a column"


_SMALL: Final = 10 ** (38 - RATIO_DIGITS)
_LARGE: Final = 10 ** (76 - RATIO_DIGITS)
_VALUE: Final = "value"
_WATERMARK: Final = "watermark"
_COMPLETE: Final = "complete"


def accepted(header: str) -> Format:
    """The first of the client's media types that is served; JSON where none is."""
    for each in header.split(","):
        name = each.partition(";")[0].strip().lower()
        if name in set(Format):
            return Format(name)
    return Format.JSON


def completeness(tables: Sequence[Table]) -> str:
    """Whether all are complete, as headers and metadata say it."""
    return "true" if all(table.complete for table in tables) else "false"


def csv_of(tables: Sequence[Table], group_by: Sequence[str], *, named: bool) -> bytes:
    """UTF-8 with a header; `named` has a column for the meter."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_names(group_by, named=named))
    for table in tables:
        for figure in table.figures:
            writer.writerow(
                [
                    *([table.meter] if named else []),
                    rfc3339(figure.window_start),
                    rfc3339(figure.window_end),
                    *(_harmless(figure.group[name]) for name in group_by),
                    figure.value or "",
                ]
            )
    return text.getvalue().encode()


def columns_of(
    tables: Sequence[Table], group_by: Sequence[str], watermark: datetime | None, form: Format, *, named: bool
) -> bytes:
    """An Arrow stream or a Parquet file; the metadata of its schema has the watermark, and whether it is complete.

    Raises TooLargeForColumns.
    """
    import pyarrow as pa  # noqa: PLC0415 (takes a second, and only who asks for columns should wait)
    import pyarrow.ipc  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    table = _arrow_table(pa, tables, group_by, named=named)
    metadata = {} if watermark is None else {_WATERMARK: rfc3339(watermark)}
    table = table.replace_schema_metadata({**metadata, _COMPLETE: completeness(tables)})
    sink = pa.BufferOutputStream()
    if form is Format.PARQUET:
        pa.parquet.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _arrow_table(pa: Any, tables: Sequence[Table], group_by: Sequence[str], *, named: bool) -> pa.Table:
    rows = [(table.meter, figure) for table in tables for figure in table.figures]
    values = [None if figure.value is None else Decimal(figure.value) for _, figure in rows]
    largest = max((value.copy_abs() for value in values if value is not None), default=Decimal())
    if largest >= _LARGE:
        raise TooLargeForColumns("A value has more than 58 digits before the point: ask for JSON or CSV.")
    decimal = pa.decimal128(38, RATIO_DIGITS) if largest < _SMALL else pa.decimal256(76, RATIO_DIGITS)
    instant = pa.timestamp("us", tz="UTC")
    columns = [pa.array([meter for meter, _ in rows], pa.string())] if named else []
    columns += [
        pa.array([figure.window_start for _, figure in rows], instant),
        pa.array([figure.window_end for _, figure in rows], instant),
        *(pa.array([figure.group[name] for _, figure in rows], pa.string()) for name in group_by),
        pa.array(values, decimal),
    ]
    return pa.table(columns, names=_names(group_by, named=named))


def _names(group_by: Sequence[str], *, named: bool) -> list[str]:
    before = [*(["meter"] if named else []), "window_start", "window_end"]
    names = []
    for dimension in group_by:
        name = dimension
        while name in {*before, _VALUE} or (name != dimension and name in group_by):
            name = f"group_{name}"
        names.append(name)
    return [*before, *names, _VALUE]


def _harmless(value: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value

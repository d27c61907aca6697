"""Figures in columns: what is odd about them comes out of every format as it went in."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from usage_service.queries.figures import Figure
from usage_service.queries.formats import Format, Table, TooLargeForColumns, columns_of, csv_of

START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)


def table(*rows: tuple[str | None, dict[str, str]]) -> Table:
    return Table("m", [Figure(START, END, value, group, START, END) for value, group in rows], complete=True)


def read(content: bytes, form: Format) -> pa.Table:
    if form is Format.PARQUET:
        return pa.parquet.read_table(io.BytesIO(content))
    return pa.ipc.open_stream(content).read_all()


@pytest.mark.parametrize("form", [Format.ARROW, Format.PARQUET])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [None],
        ["0", None, "-12.5", "0.000000000000000001"],
        ["-99999999999999999999.999999999999999999"],
        ["100000000000000000000", "1"],
        ["-" + "9" * 58 + "." + "9" * 18],
    ],
)
def test_columns_have_every_value(values, form):
    found = read(columns_of([table(*((value, {}) for value in values))], [], None, form, named=False), form)
    assert found.column("value").to_pylist() == [None if value is None else Decimal(value) for value in values]
    assert found.column_names == ["window_start", "window_end", "value"]


def test_what_no_column_can_hold_is_said():
    for value in ("1" + "0" * 58, "-1" + "0" * 76):
        with pytest.raises(TooLargeForColumns):
            columns_of([table((value, {}))], [], None, Format.ARROW, named=False)
        assert value in csv_of([table((value, {}))], [], named=False).decode()


def test_no_two_columns_have_one_name():
    group = {"value": "a", "group_value": "b", "window_start": "c", "meter": "d", "plan": ""}
    content = columns_of([table(("1", group))], list(group), None, Format.PARQUET, named=True)
    [row] = read(content, Format.PARQUET).to_pylist()
    assert row == {
        "meter": "m",
        "window_start": START,
        "window_end": END,
        "group_group_value": "a",
        "group_value": "b",
        "group_window_start": "c",
        "group_meter": "d",
        "plan": "",
        "value": Decimal(1),
    }
    lines = csv_of([table(("1", group))], list(group), named=False).decode()
    assert next(csv.reader(io.StringIO(lines)))[2:] == [
        "group_group_value",
        "group_value",
        "group_window_start",
        "meter",
        "plan",
        "value",
    ]


def test_csv_keeps_texts_apart_from_formulas_and_lines():
    texts = ["=1+1", "-2", "@x", 'a "quoted", text', "two\nlines", ""]
    rows = [("-1.5", {"name": text}) for text in texts] + [(None, {"name": "x"})]
    found = list(csv.DictReader(io.StringIO(csv_of([table(*rows)], ["name"], named=False).decode(), newline="")))
    assert [each["name"] for each in found] == ["'=1+1", "'-2", "'@x", *texts[3:], "x"]
    assert [each["value"] for each in found] == ["-1.5"] * len(texts) + [""]

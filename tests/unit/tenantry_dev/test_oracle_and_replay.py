"""The oracle and the replay are separate code, and read the same out of any file, however odd its lines are."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry_dev.oracle.quantities import UsageByMonth, llm_usage, log_usage
from tenantry_dev.sample.traces import TraceError, open_trace

LINE = r'192.0.2.7 - - [31/Mar/2025:23:30:00 -0200] "GET /a\"b HTTP/1.1" 200 12 "-" "Moz \"x\""'
ROW = "2025-03-31 23:59:59.9999999,10,5"
HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"
READERS: dict[str, Callable[[Path], UsageByMonth]] = {"log": log_usage, "llm": llm_usage}
NAMES = {"bytes": "bytes", "input_tokens": "input", "output_tokens": "output"}

ODD_LINES = [
    "",
    "garbage",
    LINE.replace("192.0.2.7", "2001:db8::1"),
    LINE.replace("GET /a", "GET /\x00"),
    LINE.replace('"GET', '"'),
    LINE.replace(" 12 ", " - "),
    LINE.replace(" 12 ", " -5 "),
    LINE.replace(" 12 ", f" {10**37} "),
    LINE.replace(" 12 ", f" {10**38} "),
    LINE.replace(" 200 ", " 2000 "),
    LINE.replace("31/Mar", "1/Mar"),
    LINE.replace("Mar", "MAR"),
    LINE.replace("-0200", "-02:00"),
    LINE.replace("23:30:00", "23:59:60"),
    LINE.partition(' "-"')[0],
    LINE + '" "',
    LINE + "\r",
    LINE.replace("/a", "/\u2028\x0b\x85"),
    LINE.replace("/2025", "/0025"),
    LINE.replace("/2025", "/0000"),
    LINE.replace("31/Mar/2025:23:30:00 -", "01/Jan/0001:00:30:00 +"),
    LINE.replace("- - ", ""),
    LINE.replace("- - ", '- ] "'),
    LINE.replace(" - - [", "["),
    LINE.replace("- -", "- a user"),
    LINE.replace("- -", "- [31/Mar/2025:23:30:00 -0200]"),
]
ODD_ROWS = [
    "",
    "2025-03-31 23:59:59, 10 ,5",
    '"2025-03-31 23:59:59", "10","5"',
    "2025-03-31 23:59:59,10",
    "2025-03-31 23:59:59,10,5,6",
    "2025-03-31 23:59:59,,5",
    "2025-03-31 23:59:59,1.5,5",
    "2025-03-31 23:59:59,-1,5",
    f"2025-03-31 23:59:59,{10**37},5",
    f"2025-03-31 23:59:59,{10**38},5",
    "2025-03-31 23:59,10,5",
    "2025-03-31,10,5",
    "20250331T235959,10,5",
    "2025-03-31 23:59:59.,10,5",
    '"2025-03-31 23:59:59,5",10,5',
    "2025-03-31T23:59:59Z,10,5",
    "2025-03-31 23:59:59-02:00,10,5",
    "2025-03-31 23:59:59,10\x0b,5",
    "2025-03-31 23:59:Z,10,5",
]


def replayed(path: Path, kind: Literal["log", "llm"]) -> dict[tuple[int, str], Counter[str]]:
    usage: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    try:
        trace = open_trace(path, kind)
    except TraceError:
        return usage
    for event in trace.events():
        counted = Counter({name: int(event.data[field]) for field, name in NAMES.items() if field in event.data})
        usage[event.tenant, f"{event.time:%Y-%m}"] += counted + Counter(requests=1)
    return usage


def assert_equal(path: Path, kind: Literal["log", "llm"], content: str) -> None:
    path.write_bytes(content.encode())
    assert replayed(path, kind) == READERS[kind](path)


@pytest.mark.parametrize("odd", ODD_LINES)
def test_odd_lines_of_a_log(tmp_path: Path, odd: str) -> None:
    assert_equal(tmp_path / "a.log", "log", f"{LINE}\n{odd}\n{LINE}")


@pytest.mark.parametrize("odd", ODD_ROWS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_odd_rows_of_a_csv(tmp_path: Path, odd: str, end: str) -> None:
    assert_equal(tmp_path / "a.csv", "llm", end.join(["\ufeff" + HEAD, ROW, odd, ROW, ""]))


def test_packed_files_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(f"{HEAD}\r\n{ROW}\r\n".encode()))
    assert replayed(path, "llm") == llm_usage(path) != {}


@settings(max_examples=200)
@given(
    place=st.integers(0, len(LINE)),
    cut=st.integers(0, 3),
    text=st.text('0 -:"[]\\/\u00e9A', max_size=3),
)
def test_any_damage_to_a_log_line(tmp_path_factory: pytest.TempPathFactory, place: int, cut: int, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.log"
    assert_equal(path, "log", f"{LINE}\n{LINE[:place]}{text}{LINE[place + cut :]}\n")


@settings(max_examples=200)
@given(place=st.integers(0, len(ROW)), cut=st.integers(0, 3), text=st.text('0 -:,.TZ"+\u00e9', max_size=3))
def test_any_damage_to_a_row(tmp_path_factory: pytest.TempPathFactory, place: int, cut: int, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    assert_equal(path, "llm", f"{HEAD}\n{ROW}\n{ROW[:place]}{text}{ROW[place + cut :]}\n{ROW}\n")

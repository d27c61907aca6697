"""Files as events."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from base64 import b64encode
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tenantry.cli import Misused
from tenantry.metering import UnreadableLine
from usage_service.commands._files import Source
from usage_service.commands._mapping import Column, TenantRule
from usage_service.commands._readers import (
    Line,
    Skipped,
    read_access_log,
    read_csv,
    read_dead_letters,
    read_jsonl,
    read_parquet,
)

from .support import LOG, mapping, only, source


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        zstandard.compress,
        # Rotated logs are packed one behind the other.
        lambda content: gzip.compress(content[:40]) + gzip.compress(content[40:]),
        lambda content: zstandard.compress(content[:40]) + zstandard.compress(content[40:]),
    ],
)
def test_a_file_is_unpacked_and_its_lines_have_ids_of_their_own(tmp_path, pack):
    content = pack(f"{LOG}\nbroken\n\n{LOG}\n".encode())
    wanted = mapping(columns=(Column("path", "path"), Column("bytes", "bytes")))
    reads = list(read_access_log(source(tmp_path / "log", content), wanted))
    prefix = hashlib.sha256(content).hexdigest()[:16]
    assert [(read.number, isinstance(read, Skipped)) for read in reads] == [
        (0, False),
        (1, True),
        (2, True),
        (3, False),
    ]
    assert [read.event["id"] for read in reads if isinstance(read, Line)] == [f"{prefix}:0", f"{prefix}:3"]
    first = reads[0]
    assert isinstance(first, Line)
    assert first.event["time"] == "2025-06-01T00:30:00+00:00"
    assert first.event["data"] == {"path": "/t/acme/a?b=c", "bytes": 512}


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-10],
        lambda packed: packed + packed[:-10],
        lambda packed: packed + b"more",
        lambda packed: packed[:20] + bytes(200) + packed[220:],
    ],
    ids=["cut", "second one cut", "more behind", "overwritten"],
)
def test_a_packed_file_that_is_cut_off_or_damaged_is_no_success(tmp_path, pack, damage):
    log = "".join(f"{LOG} {number}\n" for number in range(5_000))
    file = source(tmp_path / "log", damage(pack(log.encode())))
    with pytest.raises(Misused, match="cut off or damaged"):
        list(read_access_log(file, mapping()))


def test_large_frames_are_read_in_parts(tmp_path):
    log = "".join(f"{LOG}\n" for _ in range(50_000))
    packed = zstandard.compress(log.encode()) + zstandard.compress(b"") + zstandard.compress(log.encode())
    assert sum(1 for _ in read_access_log(source(tmp_path / "log", packed), mapping())) == 100_000


def test_a_rule_says_whose_a_line_is(tmp_path):
    log = source(tmp_path / "log", LOG + "\n")
    by_path = TenantRule(column="path", pattern=re.compile(r"^/t/([^/]+)/"))
    by_address = TenantRule(column="address", table={"192.0.2.7": "globex"})
    strangers = TenantRule(column="address", table={})
    assert only(read_access_log(log, mapping(tenant=by_path))).event["subject"] == "acme"
    assert only(read_access_log(log, mapping(tenant=by_address))).event["subject"] == "globex"
    assert isinstance(only(read_access_log(log, mapping(tenant=strangers))), Skipped)
    for wrong in ({}, {"tenant": "a", "column": "b"}, {"tenant": "a", "pattern": re.compile("(a)")}):
        with pytest.raises(Misused):
            TenantRule(**wrong)
    with pytest.raises(Misused):
        TenantRule(column="path", pattern=re.compile("no group"))


def test_columns_become_data_with_their_types(tmp_path):
    text = '\ufeffwhen, id,n,f,b,j,t,rest\r\n2023-11-16 18:17:03.9799669,x,12,1.50,yes,"{""a"":1.10}",001,\r\n'
    columns = tuple(map(Column.parse, ("n:integer", "fee=f:number", "b:boolean", "j:json", "t", "rest")))
    [read] = read_csv(source(tmp_path / "f.csv", text), mapping(time="when", id="id", columns=columns), delimiter=",")
    assert isinstance(read, Line)
    assert read.event["id"] == "x"
    assert read.event["time"] == "2023-11-16T18:17:03.979966+00:00"
    assert read.event["data"] == {"n": 12, "fee": Decimal("1.50"), "b": True, "j": {"a": Decimal("1.10")}, "t": "001"}
    untyped = only(read_csv(source(tmp_path / "g.csv", text), mapping(time="when", id="id"), delimiter=","))
    assert set(untyped.event["data"]) == {"n", "f", "b", "j", "t"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2023-11-16 18:17:03,x", "2 cells for 3 columns"),
        ("yesterday,1,1", "time: the time cannot be read"),
        ("2023-02-30 00:00:00,1,1", "time: the time cannot be read"),
        ("2023-11-16 18:17:03,1.5,1", "n: is not an integer"),
        ("2023-11-16 18:17:03,1,1_0", "f: value must be a finite number"),
        ("2023-11-16 18:17:03,1,NaN", "f: value must be a finite number"),
    ],
)
def test_a_row_that_cannot_be_read_is_skipped_with_its_reason(tmp_path, line, reason):
    text = f"time,n,f\n{line}\n2023-11-16 18:17:03,1,1\n"
    columns = tuple(map(Column.parse, ("n:integer", "f:number")))
    skipped, good = read_csv(source(tmp_path / "f.csv", text), mapping(columns=columns), delimiter=",")
    assert isinstance(skipped, Skipped)
    assert skipped.reason.startswith(reason)
    assert (good.number, isinstance(good, Line)) == (1, True)


def test_a_column_that_is_not_there_is_said_before_anything_is_read(tmp_path):
    with pytest.raises(Misused, match="no column when"):
        list(read_csv(source(tmp_path / "f.csv", "a,b\n1,2\n"), mapping(time="when"), delimiter=","))
    for wrong in ("", "a=", ":integer"):
        with pytest.raises(Misused):
            Column.parse(wrong)


@pytest.mark.parametrize(
    ("unit", "number"), [("s", "1700158623.25"), ("ms", "1700158623250"), ("us", "1700158623250000")]
)
def test_a_time_may_be_a_number(tmp_path, unit, number):
    [read] = read_csv(source(tmp_path / "f.csv", f"time\n{number}\n"), mapping(epoch=unit), delimiter=",")
    assert isinstance(read, Line)
    assert read.event["time"] == datetime(2023, 11, 16, 18, 17, 3, 250_000, tzinfo=UTC).isoformat()


def test_parquet_keeps_its_types(tmp_path):
    table = pa.table(
        {
            "time": pa.array([1_700_158_623_979_966_999, 0], pa.timestamp("ns")),
            "n": pa.array([2**53 + 1, None]),
            "f": pa.array([0.1, float("nan")]),
            "d": pa.array([Decimal("1.10"), Decimal(0)]),
            "tags": pa.array([["a"], []]),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet")
    file = Source.of(tmp_path / "f.parquet", "f")
    first, second = read_parquet(file, mapping())
    assert isinstance(first, Line)
    assert first.event["time"] == "2023-11-16T18:17:03.979966+00:00"
    assert first.event["data"] == {"n": 2**53 + 1, "f": Decimal("0.1"), "d": Decimal("1.10"), "tags": ["a"]}
    assert isinstance(second, Skipped)
    with pytest.raises(Misused, match="Parquet"):
        list(read_parquet(source(tmp_path / "no.parquet", "PAR1 but not"), mapping()))


def test_json_lines_are_events_or_rows(tmp_path):
    event = {"specversion": "1.0", "id": "e", "source": "theirs", "type": "x", "subject": "globex", "data": {"a": 1.5}}
    lines = [json.dumps(event), "", '{"specversion":"1.0"}', '{"time":"2025-01-01T00:00:00Z","a":1.50}', "5", "{"]
    file = source(tmp_path / "f.jsonl", "\n".join(lines))
    whole, filled, row, *bad = read_jsonl(file, mapping())
    assert isinstance(whole, Line)
    assert whole.event == {**event, "data": {"a": Decimal("1.5")}}
    assert isinstance(filled, Line)
    assert filled.event == {
        "specversion": "1.0", "id": f"{file.prefix}:2", "source": "s", "type": "t", "subject": "acme",
    }  # fmt: skip
    assert isinstance(row, Line)
    assert row.event["data"] == {"a": Decimal("1.50")}
    assert [tuple(each) for each in bad] == [(4, "not a JSON object"), (5, "not JSON")]


def test_dead_letters_give_their_events_back(tmp_path):
    event = '{"id":"e","data":{"n":1.10}}'
    letters = [
        {"payload": event},
        {"topic": "usage.events.v1", "value": b64encode(event.encode()).decode()},
        *({"payload": "{nonsense"}, {"payload": "[" * 10_000}, {"payload": 5}, {"value": "%"}, {"value": None}, {}),
    ]
    reads = list(read_dead_letters(source(tmp_path / "l", "\n".join(map(json.dumps, letters)))))
    good = [read.event for read in reads if isinstance(read, Line)]
    assert good == [{"id": "e", "data": {"n": Decimal("1.10")}}] * 2
    assert [(each.number, isinstance(each, Skipped)) for each in reads[2:]] == [(n, True) for n in range(2, 8)]


def test_an_unreadable_line_is_no_crash():
    with pytest.raises(UnreadableLine):
        mapping().event({}, "id")

from __future__ import annotations

import gzip
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry_dev.oracle.quantities import llm_usage, log_usage
from tenantry_dev.sample.generator import generate_llm, generate_log
from tenantry_dev.sample.traces import Trace, TraceError, open_trace

LINE = '192.0.2.7 - - [31/May/2025:23:30:00 -0100] "GET /a?b=c HTTP/1.1" 200 512 "-" "curl"'


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_a_log_line_becomes_an_event(tmp_path: Path) -> None:
    path = write(tmp_path / "access.log", f"{LINE}\n")

    trace = open_trace(path, "log")

    (event,) = trace.events()
    assert event.id == f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}:0"
    assert event.source == "replay/log"
    assert event.type == "http.request"
    assert event.tenant == int(hashlib.sha256(b"192.0.2.7").hexdigest(), 16) % 12
    assert event.time == datetime(2025, 6, 1, 0, 30, tzinfo=UTC)
    assert event.data == {"method": "GET", "path": "/a?b=c", "status": 200, "bytes": 512}


def test_a_row_becomes_an_event_with_time_cut_to_microseconds(tmp_path: Path) -> None:
    rows = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799669,4808,10\r\n"
    path = write(tmp_path / "llm.csv", rows)

    (event,) = open_trace(path, "llm").events()

    assert event.id.endswith(":0")
    assert (event.source, event.type, event.tenant) == ("replay/llm", "llm.request", 0)
    assert event.time == datetime(2023, 11, 16, 18, 17, 3, 979966, tzinfo=UTC)
    assert event.data == {"input_tokens": 4808, "output_tokens": 10}


def test_lines_keep_their_numbers_when_others_are_skipped(tmp_path: Path) -> None:
    broken = LINE.replace("200", "abc")
    trace = open_trace(write(tmp_path / "access.log", f"{broken}\n{LINE}\n\n{LINE}\n"), "log")

    assert [event.line for event in trace.events()] == [1, 3]
    assert [skipped.line for skipped in trace.skipped] == [0, 2]
    assert trace.events_total == 2


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (LINE.replace("512", "-"), 0),
        (LINE.replace('"curl"', '"Mozilla/5.0 (broken'), 512),
        (LINE.replace('"curl"', ""), 512),
        (LINE.split(' "-"', maxsplit=1)[0], 512),
        (LINE.replace("GET /a?b=c HTTP/1.1", 'GET /a\\"b HTTP/1.1'), 512),
        (LINE.replace("GET /a?b=c HTTP/1.1", "GET /a"), 512),
    ],
    ids=["no size", "broken agent", "no agent", "common format", "quote in path", "HTTP/0.9"],
)
def test_what_is_no_reason_to_skip_a_line(tmp_path: Path, line: str, size: int) -> None:
    path = write(tmp_path / "access.log", f"{line}\n")

    (event,) = open_trace(path, "log").events()

    assert event.data["bytes"] == size
    assert log_usage(path)[event.tenant, "2025-06"]["bytes"] == size


@pytest.mark.parametrize(
    "line",
    [
        "",
        LINE.replace("GET /a?b=c HTTP/1.1", "-"),
        LINE.replace("GET /a?b=c HTTP/1.1", ""),
        LINE.replace("GET /a?b=c HTTP/1.1", 'GET /a"b HTTP/1.1'),
        LINE.replace(" 200 ", " 20 "),
        LINE.replace(" 200 ", " "),
        LINE.replace(" 512 ", " 5x2 "),
        LINE.replace("31/May", "31/Nov"),
        LINE.replace("31/May/2025:23:30:00 -0100", "yesterday"),
    ],
)
def test_what_is_a_reason_to_skip_a_line(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "access.log", f"{line}\n{LINE}\n")

    trace = open_trace(path, "log")

    assert [skipped.line for skipped in trace.skipped] == [0]
    assert sum(usage["requests"] for usage in log_usage(path).values()) == 1


@pytest.mark.parametrize(
    "row", ["", "yesterday,1,2", "2023-11-16 18:17:03,x,2", "2023-11-16 18:17:03,1", "2023-13-16 18:17:03,1,2"]
)
def test_a_row_that_cannot_be_read_is_skipped(tmp_path: Path, row: str) -> None:
    text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n{row}\n2023-11-16 18:17:03,1,2\n"
    path = write(tmp_path / "llm.csv", text)

    trace = open_trace(path, "llm")

    assert trace.events_total == 1
    assert sum(usage["requests"] for usage in llm_usage(path).values()) == 1


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "whatever"
    path.write_bytes(gzip.compress(f"{LINE}\n".encode()))

    assert open_trace(path, "log").events_total == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", "log"), (b"hello\n", "log"), (b"a,b\n1,2\n", "llm"), (b"\x1f\x8bnot really", "log"), (b"", "llm")],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(TraceError):
        open_trace(path, kind)  # type: ignore[arg-type]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        open_trace(tmp_path / "none", "log")


def test_the_generator_gives_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate_log(tmp_path / f"{name}.log", lines=300)
        generate_llm(tmp_path / f"{name}.csv", rows=300)

    assert (tmp_path / "a.log").read_bytes() == (tmp_path / "b.log").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_generated_traces_have_the_shape_of_real_ones(tmp_path: Path) -> None:
    generate_log(tmp_path / "log", lines=4_000)
    generate_llm(tmp_path / "llm", rows=2_000)
    log, llm = open_trace(tmp_path / "log", "log"), open_trace(tmp_path / "llm", "llm")

    per_tenant = sorted((sum(event.tenant == n for event in log.events()) for n in range(12)), reverse=True)
    assert per_tenant[0] > 4 * per_tenant[-1]
    assert log.skipped
    assert {event.time.month for event in log.events()} == {5, 6}
    assert {event.time.month for event in llm.events()} == {9, 10}
    assert max(int(event.data["input_tokens"]) for event in llm.events()) > 10_000


@given(st.text(alphabet='ab" \\[]-0123456789/:GET\t\u00a0', max_size=60), st.text(alphabet='0-9 "x', max_size=8))
@settings(max_examples=200)
def test_replay_and_oracle_read_the_same_lines(tmp_path_factory: pytest.TempPathFactory, odd: str, tail: str) -> None:
    path = tmp_path_factory.mktemp("trace") / "access.log"
    lines = [
        LINE.replace("GET /a?b=c HTTP/1.1", odd),
        LINE.replace(" 200 512", f" 200 {tail}"),
        LINE.replace("curl", odd),
        LINE,
    ]
    write(path, "".join(f"{line}\n" for line in lines))

    assert totals(open_trace(path, "log"), "bytes") == {
        key: (usage["requests"], usage["bytes"]) for key, usage in log_usage(path).items()
    }


def totals(trace: Trace, field: str) -> dict[tuple[int, str], tuple[int, int]]:
    found: dict[tuple[int, str], tuple[int, int]] = {}
    for event in trace.events():
        key = (event.tenant, f"{event.time:%Y-%m}")
        requests, amount = found.get(key, (0, 0))
        found[key] = (requests + 1, amount + int(event.data[field]))
    return found


def test_replay_and_oracle_agree_on_generated_traces(tmp_path: Path) -> None:
    generate_log(tmp_path / "log", lines=3_000)
    generate_llm(tmp_path / "llm", rows=3_000)

    log, llm = log_usage(tmp_path / "log"), llm_usage(tmp_path / "llm")

    assert totals(open_trace(tmp_path / "log", "log"), "bytes") == {
        k: (u["requests"], u["bytes"]) for k, u in log.items()
    }
    for field, name in (("input_tokens", "input"), ("output_tokens", "output")):
        assert totals(open_trace(tmp_path / "llm", "llm"), field) == {
            k: (u["requests"], u[name]) for k, u in llm.items()
        }

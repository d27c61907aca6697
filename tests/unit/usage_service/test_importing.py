"""Files as events, and batches as requests that are repeated until they are answered."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner

from tenantry.cli import CommandFailed, Misused, Unreachable
from tenantry.metering import UnreadableLine
from usage_service.commands import _progress, app, dead_letters
from usage_service.commands._api import Api, Credentials, find_credentials
from usage_service.commands._files import Source
from usage_service.commands._importing import BATCH, BATCH_BYTES, import_lines
from usage_service.commands._ingest import Ingest
from usage_service.commands._mapping import Column, RowMapping, TenantRule
from usage_service.commands._progress import Journal, Tally, Telling
from usage_service.commands._readers import (
    Line,
    Skipped,
    read_access_log,
    read_csv,
    read_dead_letters,
    read_jsonl,
    read_parquet,
)
from usage_service.dead_letters.api import Kind
from usage_service.settings import UsageSettings

LOG = '192.0.2.7 - - [31/May/2025:23:30:00 -0100] "GET /t/acme/a?b=c HTTP/1.1" 200 512 "-" "curl"'
URL = "http://usage.test"


def source(path: Path, content: bytes | str) -> Source:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Source.of(path, path.name)


def mapping(**changes) -> RowMapping:
    given = {"tenant": TenantRule(tenant="acme"), "type": "t", "source": "s", "time": "time", **changes}
    return RowMapping(**given)


def only(reads) -> Any:
    (read,) = reads
    return read


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


class Service:
    """Answers from a list of responses, then accepts; remembers the ids of each request."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.documents: list[dict] = []
        self.asked: list = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": 600})
        if self.documents:
            self.asked.append(json.loads(request.content))
            return httpx.Response(200, json=self.documents.pop(0))
        events = json.loads(request.content)
        self.asked.append([event["id"] for event in events])
        answer = self.answers.pop(0) if self.answers else accepted(len(events))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ingest(self, **options) -> Ingest:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return Ingest(Api(client, Credentials(URL, "http://tenant.test", "id", "secret")), **options)


def accepted(count: int, *rejected: tuple[int, str]) -> httpx.Response:
    errors = [{"index": index, "kind": kind, "reason": kind} for index, kind in rejected]
    return httpx.Response(202, json={"accepted": count - len(errors), "rejected": errors})


def lines(count: int, *, first: int = 0, size: int = 0):
    for number in range(first, count):
        yield Line(number, {"id": f"{number}", "data": "x" * size})


def run(service: Service, reads, tmp_path, *, first: int = 0, at_once: int = 1, **options) -> tuple[Tally, Journal]:
    file = source(tmp_path / "file", "content")
    tally, journal = Tally(), Journal(file, [], directory=tmp_path)
    telling = Telling(file, as_json=False)
    asyncio.run(import_lines(reads, service.ingest(**options), tally, telling, journal, first=first, at_once=at_once))
    return tally, journal


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """Pauses are noted and not waited for."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


def test_batches_go_in_order_and_are_bounded(tmp_path):
    service = Service()
    tally, _ = run(service, lines(BATCH * 2 + 1), tmp_path)
    assert [len(asked) for asked in service.asked] == [BATCH, BATCH, 1]
    assert [each for asked in service.asked for each in asked] == [str(n) for n in range(BATCH * 2 + 1)]
    assert (tally.lines, tally.sent, tally.accepted) == (BATCH * 2 + 1,) * 3
    large = Service()
    run(large, lines(8, size=1 << 20), tmp_path)
    assert max(map(len, large.asked)) == 2
    assert sum(map(len, large.asked)) == 8


def test_what_passes_is_waited_for_as_long_as_it_says(tmp_path, slept):
    busy = httpx.Response(429, headers={"Retry-After": "7"})
    service = Service(busy, httpx.Response(503), httpx.ConnectError("away"), httpx.ReadTimeout("slow"))
    tally, _ = run(service, lines(3), tmp_path)
    assert service.asked == [["0", "1", "2"]] * 5
    assert slept[0] == 7
    assert all(pause < 7 for pause in slept[1:])
    assert tally.accepted == 3


def test_only_the_events_over_a_rate_are_sent_again(tmp_path):
    service = Service(
        accepted(4, (0, "invalid"), (1, "rate-limited"), (3, "rate-limited")), accepted(2, (1, "invalid"))
    )
    tally, _ = run(service, lines(4), tmp_path)
    assert service.asked == [["0", "1", "2", "3"], ["1", "3"]]
    assert (tally.accepted, dict(tally.refused)) == (2, {"invalid": 2})
    assert [each["line"] for each in tally.examples] == [0, 3]


def test_what_is_too_large_together_is_sent_apart(tmp_path):
    service = Service(httpx.Response(413), accepted(2), httpx.Response(413), accepted(1), httpx.Response(413))
    tally, _ = run(service, lines(4), tmp_path)
    assert service.asked == [["0", "1", "2", "3"], ["0", "1"], ["2", "3"], ["2"], ["3"]]
    assert (tally.accepted, tally.refused.total(), tally.examples[0]["line"]) == (3, 1, 3)


def test_a_cut_import_goes_on_behind_what_was_answered(tmp_path):
    away = [httpx.ConnectError("away")] * 50
    service = Service(accepted(BATCH), *away)
    with pytest.raises(Unreachable) as failure:
        run(service, lines(BATCH * 2), tmp_path, patience=0)
    assert "--resume" in (failure.value.next_step or "")
    journal = Journal(source(tmp_path / "file", "content"), [], directory=tmp_path)
    assert journal.next_line() == BATCH
    again = Service()
    tally, journal = run(again, lines(BATCH * 2), tmp_path, first=journal.next_line())
    assert (again.asked[0][0], tally.sent) == (str(BATCH), BATCH)
    assert journal.next_line() == 0


def test_the_journal_stays_behind_the_oldest_batch_that_is_open(tmp_path):
    """The second batch is answered and the first is not: a resumed import begins with the first."""
    service = Service(httpx.ConnectError("away"), accepted(BATCH))
    with pytest.raises(Unreachable):
        run(service, lines(BATCH * 2), tmp_path, at_once=2, patience=-1)
    assert Journal(source(tmp_path / "file", "content"), [], directory=tmp_path).next_line() == 0


def test_another_file_or_other_options_have_another_journal(tmp_path):
    one, other = source(tmp_path / "a", "a"), source(tmp_path / "b", "b")
    Journal(one, ["x"], directory=tmp_path).keep(5)
    assert Journal(one, ["x"], directory=tmp_path).next_line() == 5
    assert Journal(one, ["y"], directory=tmp_path).next_line() == 0
    assert Journal(other, ["x"], directory=tmp_path).next_line() == 0


def test_a_refused_request_ends_the_import_with_its_reason(tmp_path):
    service = Service(httpx.Response(403, json={"title": "No", "detail": "not yours"}))
    with pytest.raises(CommandFailed, match="No: not yours"):
        run(service, lines(1), tmp_path)


def test_a_token_that_has_ended_is_renewed_once(tmp_path):
    service = Service(httpx.Response(401))
    assert run(service, lines(1), tmp_path)[0].accepted == 1
    assert len(service.asked) == 2


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """Commands in an empty directory, against a service that is a transport."""
    service = Service()
    client = httpx.AsyncClient
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **options: client(transport=httpx.MockTransport(service), **options)
    )
    names = {"USAGE_URL": URL, "TENANT_URL": "http://tenant.test", "CLIENT_ID": "id", "CLIENT_SECRET": "s"}
    environment = {f"TENANTRY_{name}": value for name, value in names.items()}

    def invoke(*arguments: str, code: int = 0, typed: bytes = b"", group: str = "import"):
        done = CliRunner().invoke(app, ["usage", group, *arguments], env=environment, input=typed)
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    invoke.service = service  # type: ignore[attr-defined]
    return invoke


def test_the_command_ends_with_a_summary(terminal, tmp_path):
    text = "at,n\n2025-01-01 00:00:00,1\nnever,1\n2025-01-01 00:00:00,2\n"
    (tmp_path / "f.csv").write_text(text)
    options = ("csv", "f.csv", "--tenant", "acme", "--type", "t", "--time", "at", "--data", "n:integer", "--json")
    summary = json.loads(terminal(*options).splitlines()[-1])
    assert summary["event"] == "summary"
    assert (summary["sent"], summary["accepted"], summary["refused"]) == (2, 2, {})
    assert summary["skipped"] == {"at: the time cannot be read": 1}
    assert summary["examples"] == [{"line": 1, "what": "skipped", "reason": "at: the time cannot be read"}]
    terminal(*options, "--strict", code=1)
    terminal.service.answers = [accepted(2, (1, "too-old"))]
    assert json.loads(terminal(*options, code=1).splitlines()[-1])["refused"] == {"too-old": 1}
    terminal.service.answers = [accepted(2, (1, "too-old"))]
    assert "too-old" in terminal(*options[:-1], code=1)


def test_standard_input_is_read(terminal):
    packed = gzip.compress((LOG + "\n").encode())
    terminal("access-log", "-", "--tenant", "acme", typed=packed)
    assert terminal.service.asked == [[f"{hashlib.sha256(packed).hexdigest()[:16]}:0"]]


def test_letters_are_replayed_page_by_page(terminal):
    first = {"replayed": ["a"], "refused": [{"id": "b", "reason": "a conflict"}], "next_cursor": "c"}
    last = {"replayed": ["d"], "refused": [], "next_cursor": None}
    terminal.service.documents = [first, last]
    done = json.loads(terminal("replay", "--kind", "late", "--json", code=1, group="dead-letters"))
    assert done == {"replayed": ["a", "d"], "refused": first["refused"]}
    assert terminal.service.asked == [{"kind": "late"}, {"kind": "late", "cursor": "c"}]


@pytest.mark.parametrize(
    "arguments",
    [
        ("access-log", "missing.log", "--tenant", "a"),
        ("access-log", "f.csv"),
        ("access-log", "f.csv", "--tenant", "a", "--tenant-column", "path"),
        ("access-log", "f.csv", "--tenant-column", "planet"),
        ("access-log", "f.csv", "--tenant-column", "path", "--tenant-pattern", "("),
        ("csv", "f.csv", "--type", "t", "--time", "when", "--tenant", "a"),
        ("csv", "f.csv", "--type", "t", "--time", "at", "--tenant", "a", "--epoch", "h"),
        ("csv", "f.csv", "--type", "t", "--time", "at", "--tenant", "a", "--delimiter", "::"),
        ("parquet", "f.csv", "--type", "t", "--time", "at", "--tenant", "a"),
    ],
)
def test_what_cannot_be_is_said_with_code_2(terminal, tmp_path, arguments):
    (tmp_path / "f.csv").write_text("at,n\n2025-01-01 00:00:00,1\n")
    terminal(*arguments, code=2)
    assert terminal.service.asked == []


def test_credentials_come_from_the_environment_and_then_from_the_file(tmp_path):
    file = tmp_path / "operator.json"
    urls = {"usage": "http://u/", "tenant": "http://t"}
    file.write_text(json.dumps({"urls": urls, "client_id": "operator", "client_secret": "s3cret"}))
    found = find_credentials({"TENANTRY_OPERATOR_FILE": str(file), "TENANTRY_CLIENT_ID": "mine"})
    assert (found.usage_url, found.client_id, found.client_secret) == ("http://u", "mine", "s3cret")
    assert "s3cret" not in repr(found)
    with pytest.raises(CommandFailed, match="no credentials"):
        find_credentials({"TENANTRY_OPERATOR_FILE": str(tmp_path / "none")})


def test_reasons_are_bounded():
    tally = Tally()
    for number in range(1_000):
        tally.skip(number, f"reason {number}")
    assert len(tally.skipped) == _progress._REASONS + 1
    assert (tally.skipped.total(), len(tally.examples)) == (1_000, 20)


def test_an_unreadable_line_is_no_crash():
    with pytest.raises(UnreadableLine):
        mapping().event({}, "id")


def test_words_and_sizes_that_both_sides_know_agree():
    for kind in get_args(Kind):
        assert kind in get_args(dead_letters.Kind)[1].help
    assert UsageSettings.model_fields["max_body_bytes"].default > BATCH_BYTES
    assert UsageSettings.model_fields["max_batch_events"].default >= BATCH


def test_commands_come_without_what_they_do_not_need():
    """Each `tenantry` process loads them, whatever it does."""
    code = "import sys, usage_service.commands; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"aiokafka", "fastapi", "httpx", "pyarrow", "sqlalchemy", "zstandard"} & set(loaded)

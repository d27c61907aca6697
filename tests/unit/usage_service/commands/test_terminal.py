"""Commands as they are typed, and how they end."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from typing import get_args

import httpx
import pytest

from tenantry.cli import CommandFailed
from usage_service.commands import _progress, dead_letters
from usage_service.commands._api import find_credentials
from usage_service.commands._importing import BATCH, BATCH_BYTES
from usage_service.commands._progress import Tally
from usage_service.dead_letters.api import Kind
from usage_service.settings import UsageSettings

from .support import LOG, accepted


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


def test_what_was_answered_to_another_command_is_not_left_out(terminal, tmp_path):
    """As history, and at another service, none of it has been sent yet."""
    (tmp_path / "f.csv").write_text("at\n" + "2025-01-01 00:00:00\n" * (BATCH + 1))
    options = ("csv", "f.csv", "--tenant", "acme", "--type", "t", "--time", "at", "--concurrency", "1")
    ids = [f"{hashlib.sha256((tmp_path / 'f.csv').read_bytes()).hexdigest()[:16]}:{n}" for n in range(BATCH + 1)]
    terminal.service.answers = [accepted(BATCH), httpx.Response(403, json={})]
    terminal(*options, code=1)
    for other in (("--accept-late",), ("--accept-late", "--billable")):
        terminal.service.asked.clear()
        terminal(*options, *other, "--resume")
        assert [each for asked in terminal.service.asked for each in asked] == ids
    terminal.service.asked.clear()
    terminal(*options, "--resume")
    assert terminal.service.asked == [ids[BATCH:]]


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
    assert (found.url, found.client_id, found.client_secret) == ("http://u", "mine", "s3cret")
    assert "s3cret" not in repr(found)
    with pytest.raises(CommandFailed, match="no credentials"):
        find_credentials({"TENANTRY_OPERATOR_FILE": str(tmp_path / "none")})


def test_reasons_are_bounded():
    tally = Tally()
    for number in range(1_000):
        tally.skip(number, f"reason {number}")
    assert len(tally.skipped) == _progress._REASONS + 1
    assert (tally.skipped.total(), len(tally.examples)) == (1_000, 20)


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

"""Corrections from a terminal: one, or a file of them."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from usage_service.commands._correcting import Correcting

from .support import Service, api_of

ONE = ("--tenant", "acme", "--source", "app", "--id", "e-1")


def taken(count: int) -> httpx.Response:
    return httpx.Response(202, json={"accepted": count, "ids": [f"{n}" for n in range(count)]})


def faulty(*places: int) -> httpx.Response:
    errors = [{"loc": [place, "cancels.source"], "msg": "is required"} for place in places]
    return httpx.Response(400, json={"title": "Some corrections are not valid", "errors": errors})


def test_what_is_wrong_is_left_out_and_the_rest_is_sent_again(slept):
    service = Service(httpx.Response(503), httpx.ConnectError("away"), faulty(1, 3), faulty(0), taken(1))
    lines = [json.dumps({"id": f"{n}"}).encode() for n in range(4)]
    refused = asyncio.run(Correcting(api_of(service)).send(lines))
    assert service.asked == [["0", "1", "2", "3"]] * 3 + [["0", "2"], ["2"]]
    assert [(each.index, each.reason) for each in refused] == [
        (0, "cancels.source: is required"),
        (1, "cancels.source: is required"),
        (3, "cancels.source: is required"),
    ]
    assert len(slept) == 2


def test_what_is_too_large_together_is_sent_apart():
    service = Service(httpx.Response(413), taken(1), httpx.Response(413))
    refused = asyncio.run(Correcting(api_of(service)).send([b'{"id": "0"}', b'{"id": "1"}']))
    assert service.asked == [["0", "1"], ["0"], ["1"]]
    assert [(each.index, each.kind) for each in refused] == [(1, "too-large")]


def test_one_event_is_taken_back_and_replaced_to_the_digit(terminal):
    replacement = '{"id": "e-9", "data": {"bytes": 0.10000000000000000000000000001}}'
    terminal.service.whole = True
    terminal.service.answers = [taken(1), taken(1)]
    terminal(*ONE, "--reason", "a test", group="correct")
    terminal(*ONE, "--time", "2026-11-01T00:00:00Z", "--replacement", replacement, group="correct")
    cancels = {"subject": "acme", "source": "app", "id": "e-1"}
    assert json.loads(terminal.service.asked[0]) == [{"cancels": cancels, "reason": "a test"}]
    assert json.loads(terminal.service.asked[1])[0]["cancels"] == {**cancels, "time": "2026-11-01T00:00:00Z"}
    assert b"0.10000000000000000000000000001" in terminal.service.asked[1]


def test_one_that_is_refused_ends_with_its_reason(terminal):
    terminal.service.whole = True
    terminal.service.answers = [faulty(0)]
    terminal(*ONE, code=1, group="correct")


def test_a_file_is_sent_and_summed_up(terminal, tmp_path):
    good = {"cancels": {"source": "app", "id": "e-1"}}
    (tmp_path / "c.jsonl").write_text("\n".join([json.dumps(good), "{}", "nonsense", json.dumps(good)]))
    terminal.service.whole = True
    terminal.service.answers = [faulty(1), taken(1)]
    summary = json.loads(terminal("c.jsonl", "--json", code=1, group="correct").splitlines()[-1])
    assert (summary["sent"], summary["accepted"]) == (2, 1)
    assert summary["refused"] == {"cancels.source: is required": 1}
    assert [(each["line"], each["what"]) for each in summary["examples"]] == [
        (1, "skipped"),
        (2, "skipped"),
        (3, "refused"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--source", "app", "--id", "e-1"),
        ("c.jsonl", *ONE),
        ("missing.jsonl",),
        (*ONE, "--replacement", "[]"),
        (*ONE, "--replacement", "{"),
    ],
)
def test_what_cannot_be_is_said_with_code_2(terminal, tmp_path, arguments):
    (tmp_path / "c.jsonl").write_text("")
    terminal(*arguments, code=2, group="correct")
    assert terminal.service.asked == []


def test_a_letter_is_replayed_with_another_value(terminal):
    letter = "01a2002b-ed5d-709b-a6a5-169bf42a5fda"
    terminal.service.documents = [{"id": letter}]
    terminal("replay", letter, "--value", "12.5", group="dead-letters")
    assert terminal.service.asked == [{"value": "12.5"}]
    terminal("replay", "--value", "12.5", code=2, group="dead-letters")
    terminal("replay", letter, letter, "--value", "12.5", code=2, group="dead-letters")

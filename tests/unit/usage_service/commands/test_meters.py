"""Meters from a terminal: a backfill puts the meter as it is, and is followed to its end."""

from __future__ import annotations

import json

import httpx
import pytest
from typer.testing import CliRunner

from usage_service.commands import app, meters

DEFINITION = {"event_type": "t", "aggregation": "sum", "value": "$.v", "group_by": {}, "filter": {}, "unit": "byte"}
SINCE = "2026-01-01T00:00:00Z"
AWAY = httpx.ConnectError("away")


def progress(state: str, done: int, days: int | None = 3) -> dict:
    return {"from": SINCE, "state": state, "days": days, "days_done": done, "events": 1_000 * done, "finished_at": None}


def meter(backfill: dict | None) -> dict:
    return {**DEFINITION, "slug": "volume", "version": 1, "since": 1, "until": None, "backfill": backfill}


@pytest.fixture
def terminal(monkeypatch):
    """Commands, and a service that answers what a test tells it to, one after the other."""
    answers: list[dict | Exception] = []
    asked: list[tuple[str, str, dict | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": 600})
        asked.append((request.method, request.url.path, json.loads(request.content) if request.content else None))
        given = answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return httpx.Response(200, json=given)

    client = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **more: client(transport=httpx.MockTransport(answer), **more))
    monkeypatch.setattr(meters, "_POLL_SECONDS", 0.0)
    names = {"USAGE_URL": "http://u.test", "TENANT_URL": "http://t.test", "CLIENT_ID": "i", "CLIENT_SECRET": "s"}
    environment = {f"TENANTRY_{name}": value for name, value in names.items()} | {"COLUMNS": "200"}

    def invoke(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["usage", "meters", *arguments], env=environment)
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    return invoke, answers, asked


def test_a_backfill_is_asked_for_with_the_meter_as_it_is_and_followed(terminal):
    invoke, answers, asked = terminal
    waits, runs, ends = progress("waiting", 0, None), progress("running", 1), progress("finished", 3)
    answers += [meter(None), meter(waits), meter(runs), AWAY, meter(ends)]
    assert "volume: finished" in invoke("backfill", "volume", "--from", SINCE)
    assert asked[1] == ("PUT", "/v1/meters/volume", {**DEFINITION, "backfill_from": SINCE})
    assert [method for method, _, _ in asked] == ["GET", "PUT", "GET", "GET", "GET"]


def test_one_that_runs_is_followed_and_one_that_nobody_waits_for_is_not(terminal):
    invoke, answers, asked = terminal
    answers += [meter(progress("running", 2)), meter(progress("finished", 3))]
    found = json.loads(invoke("backfill", "volume", "--json"))
    assert (found["backfill"]["state"], len(asked)) == ("finished", 2)
    answers += [meter(None), meter(progress("waiting", 0, None))]
    assert "waiting" in invoke("backfill", "volume", "--from", SINCE, "--no-wait")


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01T00:00:00"])
def test_an_instant_without_an_offset_is_refused_before_anything_is_asked(terminal, since):
    invoke, _, asked = terminal
    invoke("backfill", "volume", "--from", since, code=2)
    assert asked == []


def test_all_meters_are_listed_with_their_backfills(terminal):
    invoke, answers, asked = terminal
    pages = [
        {"items": [meter(None)], "next_cursor": "c"},
        {"items": [{**meter(progress("running", 2)), "slug": "other"}], "next_cursor": None},
    ]
    answers += [*pages, *pages]
    printed = invoke("list")
    assert "volume" in printed
    assert "2 of 3 days, 2,000 events" in printed
    assert [json.loads(line)["slug"] for line in invoke("list", "--json").splitlines()] == ["volume", "other"]
    assert len(asked) == 4

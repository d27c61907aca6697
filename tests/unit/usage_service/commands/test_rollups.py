"""Republishing from a terminal: page by page, with patience."""

from __future__ import annotations

import json

import httpx
from typer.testing import CliRunner

from usage_service.commands import app, rollups

TENANT = "018f0000-0000-7000-8000-000000000001"


def test_it_goes_on_to_the_last_page_and_waits_where_nothing_was_queued(monkeypatch):
    pages = [
        {"queued": 5_000, "next_cursor": "a"},
        {"queued": 0, "next_cursor": "a"},
        {"queued": 12, "next_cursor": None},
    ]
    asked: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": 600})
        if request.url.path == "/v1/tenants/acme":
            return httpx.Response(200, json={"id": TENANT})
        assert request.url.path == "/v1/rollups/republish"
        asked.append(json.loads(request.content))
        return httpx.Response(202, json=pages[len(asked) - 1])

    client = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **more: client(transport=httpx.MockTransport(answer), **more))
    monkeypatch.setattr(rollups, "_WAIT_SECONDS", 0.01)
    names = {
        "USAGE_URL": "http://usage.test",
        "TENANT_URL": "http://tenant.test",
        "CLIENT_ID": "i",
        "CLIENT_SECRET": "s",
    }
    done = CliRunner().invoke(
        app,
        ["usage", "republish", "--tenant", "acme"],
        env={f"TENANTRY_{name}": value for name, value in names.items()},
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert "5,012 rollups" in done.output
    assert asked == [{"tenant_id": TENANT}, *[{"tenant_id": TENANT, "cursor": "a"}] * 2]

"""Routing from a terminal: what is loud is the usage service's to say, what is spread the tenant service's to keep."""

from __future__ import annotations

import json

import httpx
import pytest
from typer.testing import CliRunner

from usage_service.commands import app

LOUD = {
    "tenant_id": "018f0000-0000-7000-8000-000000000001",
    "slug": "acme",
    "buckets": 8,
    "pinned": False,
    "changed_at": "2026-11-21T10:00:00Z",
    "events_per_second": 31_000,
    "keys": "mixed",
    "mixed_since": "2026-11-21T10:00:05Z",
    "mixed_until": None,
}


@pytest.fixture
def terminal(monkeypatch):
    """Commands, and both services as a transport: the tenant service keeps the routing of `acme`."""
    routing = {"buckets": 8, "pinned": True, "changed_at": None}
    asked: list[tuple[str, str]] = []
    tokens: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            tokens.append(request.content.decode().rpartition("audience=")[2])
            return httpx.Response(200, json={"access_token": tokens[-1], "expires_in": 600})
        asked.append((request.method, f"{request.url}"))
        assert request.headers["Authorization"] == f"Bearer {request.url.host.removesuffix('.test')}"
        if request.url.path == "/v1/routing":
            return httpx.Response(200, json={"items": [LOUD]})
        if "org" in request.url.path:
            return httpx.Response(404, json={"title": "Not found", "detail": "no such tenant"})
        if request.method == "PUT":
            routing.update({"pinned": False, **json.loads(request.content)})
        return httpx.Response(200, json={"id": LOUD["tenant_id"], "slug": "acme", "routing": routing})

    client = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **more: client(transport=httpx.MockTransport(answer), **more))
    names = {
        "USAGE_URL": "http://usage.test",
        "TENANT_URL": "http://tenant.test",
        "CLIENT_ID": "i",
        "CLIENT_SECRET": "s",
    }
    environment = {f"TENANTRY_{name}": value for name, value in names.items()}

    def invoke(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["usage", "routing", *arguments], env={**environment, "COLUMNS": "200"})
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    invoke.asked = asked  # type: ignore[attr-defined]
    return invoke


def test_the_loudest_are_listed(terminal):
    assert json.loads(terminal("list", "--json")) == LOUD
    table = terminal("list")
    for said in ("acme", "31000", "mixed"):
        assert said in table


def test_a_pin_stays_and_is_taken_away_where_the_tenant_is(terminal):
    assert json.loads(terminal("pin", "acme", "4", "--json"))["pinned"] is True
    assert json.loads(terminal("unpin", "acme", "--json")) == {
        "tenant_id": LOUD["tenant_id"],
        "buckets": 4,
        "pinned": False,
        "changed_at": None,
    }
    path = "http://tenant.test/v1/tenants/acme"
    assert terminal.asked == [("PUT", f"{path}/routing"), ("GET", path), ("PUT", f"{path}/routing")]
    assert "4 keys, as it turns out to be needed" in terminal("unpin", "acme")


def test_what_cannot_be_is_said(terminal):
    assert "no such tenant" in terminal("pin", "org/9", "2", code=1)
    assert terminal.asked == [("PUT", "http://tenant.test/v1/tenants/org%2F9/routing")]
    terminal("pin", "acme", "0", code=2)

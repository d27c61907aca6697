"""From when a tenant is billed, and whose usage nobody bills, from a terminal."""

from __future__ import annotations

import json

import httpx
import pytest
from typer.testing import CliRunner

from usage_service.commands import app

TENANT = "01a2002b-ed5d-709b-a6a5-169bf42a5fda"


@pytest.fixture
def billing(tmp_path, monkeypatch):
    """A billing service that knows one tenant and lists it on two pages; the requests that it was sent."""
    asked: list[tuple[str, str, bytes]] = []
    stated: dict[str, str | None] = {"bill_from": None}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            assert b"audience=billing" in request.content
            return httpx.Response(200, json={"access_token": "t", "expires_in": 600})
        asked.append((request.method, request.url.raw_path.decode(), request.content))
        if request.url.path.endswith("/bill-from"):
            if request.method == "PUT":
                stated.update(json.loads(request.content))
            return httpx.Response(200, json={"tenant_id": TENANT, "effective": stated["bill_from"], **stated})
        row = dict.fromkeys(("tenant_id", "bill_from", "first_hour", "last_hour", "events"), "x")
        more = None if "cursor" in request.url.params else "next"
        return httpx.Response(
            200, json={"items": [{**row, "reason": "bill_from_unset", "meters": ["calls"]}], "next_cursor": more}
        )

    client = httpx.AsyncClient
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **options: client(transport=httpx.MockTransport(answer), **options)
    )
    file = tmp_path / "operator.json"
    urls = {"billing": "http://billing.test", "tenant": "http://tenant.test"}
    file.write_text(json.dumps({"urls": urls, "client_id": "operator", "client_secret": "s"}))

    def invoke(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["usage", *arguments], env={"TENANTRY_OPERATOR_FILE": str(file)})
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    invoke.asked = asked  # type: ignore[attr-defined]
    return invoke


def test_it_is_shown_stated_and_taken_back(billing):
    assert billing("bill-from", "acme/x").strip() == "nothing is billed"
    assert "2026-03-01T00:00:00Z (stated)" in billing("bill-from", "acme/x", "2026-03-01T00:00:00Z")
    assert json.loads(billing("bill-from", "acme/x", "--clear", "--json"))["bill_from"] is None
    path = "/v1/tenants/acme%2Fx/bill-from"
    assert [(method, place, json.loads(body or b"null")) for method, place, body in billing.asked] == [
        ("GET", path, None),
        ("PUT", path, {"bill_from": "2026-03-01T00:00:00Z"}),
        ("PUT", path, {"bill_from": None}),
    ]
    billing("bill-from", "acme", "2026-03-01T00:00:00Z", "--clear", code=2)


def test_all_pages_of_what_nobody_bills_end_with_code_1(billing):
    lines = billing("unbilled", "--json", code=1).splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["bill_from_unset"] * 2
    assert billing("unbilled", code=1).count("bill_from_unset") == 2

"""What helps where the service refuses."""

import json
from typing import Any
from uuid import UUID

import httpx
import pytest

from .support import TENANT, problem


def test_a_first_write_that_comes_second_is_made_on_what_the_first_one_wrote(run):
    layers: list[dict[str, Any]] = []
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and request.url.path.endswith("/config/mail"):
            return httpx.Response(200, json=layers[-1]) if layers else problem(404, "not-found")
        if request.method == "GET":
            return httpx.Response(200, json=TENANT)
        sent.append(
            (request.headers.get("If-None-Match"), request.headers.get("If-Match"), json.loads(request.content))
        )
        if len(sent) == 1:
            layers.append({"document": {"other": 1}, "version": 1})
            return problem(412, "stale-version")
        return httpx.Response(
            200, json={"namespace": "mail", "layer": "tenant", "version": 2, "constrained": [], "document": {}}
        )

    assert run(answer, "config", "set", TENANT["id"], "mail", "mine=2").exit_code == 0
    assert sent == [("*", None, {"mine": 2}), (None, '"1"', {"other": 1, "mine": 2})]


@pytest.mark.parametrize(
    ("arguments", "present", "sent"),
    [
        (("--percentage", "5"), None, {"rollout": {"percentage": 5}}),
        (
            ("--percentage", "5", "--disabled"),
            {
                "name": "f",
                "version": 3,
                "enabled": True,
                "rollout": {"variant": "on", "percentage": 1, "per_key": True},
            },
            {"enabled": False, "rollout": {"variant": "on", "percentage": 5, "per_key": True}},
        ),
    ],
)
def test_a_flag_keeps_what_is_not_said_and_is_not_written_over(run, arguments, present, sent):
    written = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return problem(404, "not-found") if present is None else httpx.Response(200, json=present)
        written.append((request.headers.get("If-Match"), json.loads(request.content)))
        return httpx.Response(200, json={"name": "f", "version": 4})

    assert run(answer, "flags", "set", "f", *arguments).exit_code == 0
    assert written == [(None if present is None else '"3"', sent)]


def test_without_test_clocks_it_is_said_how_to_have_them(run):
    result = run(lambda _request: problem(404, "not-found"), "clocks", "create", "2026-01-01T00:00:00+0000")
    assert result.exit_code == 1
    assert "TENANT_TEST_CLOCKS_ENABLED" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (("tiers", "show", "none"), "`tenantry tiers list`"),
        (("flags", "get", "none"), "`tenantry flags list`"),
        (("config", "schemas", "show", "none"), "`tenantry config schemas list`"),
        (("config", "get", "none", "--layer", "platform"), "`tenantry config schemas list`"),
        (("tenants", "runs", str(UUID(int=9))), "`tenantry tenants list`"),
    ],
)
def test_what_is_not_there_is_looked_for_where_such_things_are(run, arguments, step):
    result = run(lambda _request: problem(404, "not-found"), *arguments)
    assert result.exit_code == 1
    assert step in result.stderr


@pytest.mark.parametrize(
    ("arguments", "refusal", "advice"),
    [
        (["config", "set", "mail", "--layer", "tier", "--name", "gold", "a=1"], (404, "not-found"), "tiers list"),
        (["config", "get", "acme", "mail"], (404, "not-found"), "config schemas list"),
        (["config", "rollback", "acme", "mail", "99"], (404, "not-found"), "config versions"),
        (["config", "diff", "acme", "mail", "1", "99"], (404, "not-found"), "config versions"),
        (["tiers", "diff", "standard", "1", "2"], (404, "not-found"), "tiers versions"),
        (["tiers", "rollback", "standard", "9"], (404, "not-found"), "tiers versions"),
        (["tiers", "show", "gold"], (404, "not-found"), "tiers list"),
        (["tenants", "certificate", "acme"], (404, "not-found"), "tenants runs acme"),
        (["tenants", "cancel-offboarding", "acme"], (409, "not-offboarding"), "tenants show"),
        (["tenants", "cancel-offboarding", "acme"], (409, "tenant-gone"), "tenants create"),
        (["tenants", "purge", "acme", "--yes"], (409, "not-offboarding"), "tenants offboard"),
        (["tenants", "cancel", "acme", "1"], (409, "run-over"), "tenants runs"),
        (["domains", "verify", "acme", "a.example"], (409, "domain-unproven"), "TXT record"),
        (["branding", "set", "acme", "--name", "A"], (415, "unusable-image"), "PNG"),
    ],
)
def test_what_is_refused_is_said_with_what_helps(run, arguments, refusal, advice):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/tenants/acme":
            return httpx.Response(200, json=TENANT)
        if request.url.path == "/v1/tenants":
            return httpx.Response(200, json={"items": [TENANT], "next_cursor": None})
        if request.method == "GET" and request.url.path.endswith(("/mail", "/branding")) and "get" not in arguments:
            return httpx.Response(200, json={"document": {}, "version": 1})
        return problem(*refusal)

    result = run(answer, *arguments)
    assert result.exit_code == 1
    [following] = [line for line in result.stderr.splitlines() if line.startswith("next: ")]
    assert advice in following


def test_a_layer_without_its_name_asks_for_it(run):
    for layer in ("region", "tier"):
        result = run(lambda _request: problem(500, "never"), "config", "get", "mail", "--layer", layer)
        assert result.exit_code == 2
        assert f"say which {layer}" in result.stderr

"""What commands print, what they send again, and what they complete."""

import json
import subprocess
import sys
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner

from tenant_service.commands import _client, app, members, stores, tenants
from tenant_service.commands._arguments import complete_tenants, complete_tiers
from tenant_service.commands._client import ControlPlane, Credentials, path_of, tenant_path
from tenant_service.commands._failures import Refused
from tenant_service.domain.placement import StoreState
from tenant_service.domain.roles import Role
from tenant_service.domain.suspension import REASONS_BY_HAND
from tenantry import Isolation
from tenantry.cli import CommandFailed, Misused, Unreachable, printable

from .support import TENANT, plane, problem


def test_json_alone_is_on_standard_output(run):
    page = {"items": [TENANT], "next_cursor": "more"}
    result = run(lambda _request: httpx.Response(200, json=page), "tenants", "list", "--json")
    assert json.loads(result.stdout) == page
    assert result.exit_code == 0


def test_a_table_escapes_what_a_terminal_would_obey_and_says_that_there_is_more(run):
    page = {"items": [TENANT], "next_cursor": "more"}
    result = run(lambda _request: httpx.Response(200, json=page), "tenants", "list")
    assert "Acme \\x1b[31m[red]" in result.stdout
    assert "active (read-only)" in result.stdout
    assert "--all" in result.stderr


def test_all_pages_are_one_list(run):
    def answer(request: httpx.Request) -> httpx.Response:
        last = "cursor" in request.url.params
        return httpx.Response(200, json={"items": [TENANT], "next_cursor": None if last else "c"})

    assert len(json.loads(run(answer, "tenants", "list", "--all", "--json").stdout)["items"]) == 2


@pytest.mark.parametrize(
    ("response", "code", "words"),
    [
        (problem(403, "forbidden"), 1, ["scope `platform`"]),
        (problem(409, "slug-taken", detail="The slug is in use"), 1, ["The slug is in use", "choose another"]),
        (problem(412, "stale-version"), 1, ["repeat the command"]),
        (problem(422, "invalid-request", errors=[{"loc": ["body", "tier"], "msg": "too long"}]), 1, ["tier: too long"]),
        (httpx.Response(500, text="<html>"), 1, ["500"]),
    ],
)
def test_a_refusal_is_two_lines_on_standard_error(run, response, code, words):
    result = run(
        lambda _request: response, "tenants", "create", "a", "--name", "A", "--tier", "t", "--email", "a@x.example"
    )
    assert result.exit_code == code
    assert result.stdout == ""
    assert all(word in result.stderr for word in words)
    assert len(result.stderr.splitlines()) <= 2
    assert "s3cret" not in result.stderr


def test_a_cut_creation_is_sent_again_under_its_key_and_then_named(run):
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        raise httpx.ReadError("cut")

    result = run(answer, "tenants", "create", "a", "--name", "A", "--tier", "t", "--email", "a@x.example")
    assert result.exit_code == 3
    assert len(keys) == _client.ATTEMPTS
    assert len(set(keys)) == 1
    assert f"--idempotency-key {keys[0]}" in result.stderr


def test_what_may_have_been_done_is_not_sent_again():
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        raise httpx.ReadError("cut")

    api = plane(answer)
    with pytest.raises(Unreachable):
        api.post("/v1/tenants/a/runs/b/retry", {})
    with pytest.raises(Unreachable):
        api.write("PUT", "/v1/tiers/a", {}, version=3)
    assert len(sent) == 2
    assert sent[1].headers["If-Match"] == '"3"'


def test_a_token_that_is_refused_is_fetched_anew_once():
    tokens = iter(("old", "new"))

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": next(tokens), "expires_in": 300})
        known = request.headers["Authorization"] == "Bearer new"
        return httpx.Response(200, json={}) if known else problem(401, "unauthenticated")

    http = httpx.Client(base_url="http://tenant.test", transport=httpx.MockTransport(respond))
    api = ControlPlane(http, Credentials("http://tenant.test", "operator", "secret"), lambda _seconds: None)
    assert api.get("/v1/tiers") == {}
    with pytest.raises(Refused) as refused:
        plane(lambda _request: problem(401, "unauthenticated")).get("/v1/tiers")
    assert "TENANTRY_CLIENT_ID" in str(refused.value.next_step)


def test_a_word_that_names_two_tenants_names_none():
    other = {**TENANT, "id": str(UUID(int=8)), "slug": "org", "external_id": "acme"}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/tenants/acme":
            return httpx.Response(200, json=other)
        return httpx.Response(200, json={"items": [{**TENANT, "slug": "acme-two"}, TENANT], "next_cursor": None})

    with pytest.raises(CommandFailed) as failed:
        plane(answer).find_tenant("acme")
    assert TENANT["id"] in str(failed.value.next_step)


def test_nothing_is_done_before_it_is_confirmed(run):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        found = {"items": [TENANT], "next_cursor": None}
        return httpx.Response(200, json=found if request.url.path == "/v1/tenants" else TENANT)

    assert run(answer, "tenants", "purge", "acme", typed="acne\n").exit_code == 1
    assert "--yes" in run(answer, "tenants", "offboard", "acme", typed="").stderr
    assert set(asked) == {"GET"}
    run(answer, "tenants", "offboard", "acme", typed="acme\n")
    assert "POST" in asked


@pytest.mark.parametrize(
    "arguments",
    [
        ("tenants", "read-only", "acme"),
        ("tenants", "trial", "acme"),
        ("config", "set", "acme", "colours"),
        ("config", "get", "colours", "--layer", "tier"),
        ("audit", "verify"),
        ("audit", "list"),
        ("stores", "set", "eu-1"),
    ],
)
def test_half_a_command_is_a_wrong_one(run, arguments):
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={**TENANT, "items": [TENANT], "next_cursor": None})

    assert run(answer, *arguments).exit_code == 2


def test_completion_offers_the_names_that_there_are(run):
    keys = [
        {"id": "0a", "revoked_at": None},
        {"id": "0b", "revoked_at": "2026-01-01T00:00:00Z"},
        {"id": "1a", "revoked_at": None},
    ]
    listed = {
        "/v1/tiers": [{"name": "gold"}, {"name": "standard"}],
        "/v1/stores": [{"name": "primary"}],
        "/v1/flags": [{"name": "search"}],
        "/v1/config-schemas": [{"namespace": "mail"}],
        "/v1/tenants": [TENANT],
        f"/v1/tenants/{TENANT['id']}/api-keys": keys,
    }

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path not in listed:
            return problem(404, "not-found")
        return httpx.Response(200, json={"items": listed[request.url.path], "next_cursor": None})

    def offered(*words: str) -> list[str]:
        line = " ".join(["tenantry", *words])
        environment = {"_TENANTRY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        ended = run(answer, "--help")  # the service of the completion
        assert ended.exit_code == 0
        return CliRunner().invoke(app, prog_name="tenantry", env=environment).stdout.split()

    assert offered("tenants", "create", "x", "--tier", "g") == ["gold"]
    assert offered("tiers", "show", "s") == ["standard"]
    assert offered("keys", "rotate", "acme", "0") == ["0a"]
    assert offered("keys", "revoke", "acme", "1") == ["1a"]
    assert offered("stores", "set", "p") == ["primary"]
    assert offered("flags", "get", "s") == ["search"]
    assert offered("config", "schemas", "show", "m") == ["mail"]


def test_a_part_of_an_address_stays_one():
    assert tenant_path("a/b?c", "runs") == "/v1/tenants/a%2Fb%3Fc/runs"
    for part in ("", ".", ".."):
        with pytest.raises(Misused):
            path_of("v1", part)


def test_completion_offers_slugs_and_is_silent_where_nobody_answers(run, monkeypatch):
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"items": [TENANT, {**TENANT, "slug": "big-acme"}], "next_cursor": None})

    run(answer, "--help")
    assert complete_tenants("ac") == ["acme"]

    def away(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    run(away, "--help")
    assert complete_tenants("ac") == []
    assert complete_tiers("") == []
    monkeypatch.delenv("TENANTRY_CLIENT_ID")
    monkeypatch.setenv("TENANTRY_OPERATOR_FILE", "/nowhere")
    assert complete_tenants("ac") == []


def test_what_answers_is_the_service_or_said_not_to_be(run):
    result = run(lambda _request: httpx.Response(200, text="<html>"), "tenants", "list")
    assert result.exit_code == 1
    assert "is not the tenant service" in result.stderr


def test_what_is_printed_is_what_is_there():
    assert printable("a\nb\x07\u202e").plain == "a\\nb\\x07\\u202e"
    assert printable(None).plain == "-"


def test_the_words_are_those_of_the_service():
    assert {each.value for each in tenants.Reason} == set(REASONS_BY_HAND)
    assert [each.value for each in tenants.Isolation] == list(Isolation)
    assert [each.value for each in stores.State] == list(StoreState)
    assert [each.value for each in members.Role] == list(Role)


def test_help_needs_nothing_of_the_service():
    program = (
        "import sys, tenant_service.commands; "
        "print([m for m in ('fastapi', 'sqlalchemy', 'httpx', 'tenant_service.app') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

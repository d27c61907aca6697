"""What commands print and end with. The service is a transport that answers from a table."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner

from tenant_service.commands import _client, app, members, stores, tenants
from tenant_service.commands._arguments import complete_tenants, complete_tiers
from tenant_service.commands._client import ControlPlane, Credentials, path_of, tenant_path
from tenant_service.commands._failures import Refused
from tenant_service.commands._files import whole_file
from tenant_service.domain.audit_chain import Entry, before_the_first, content_hash, link
from tenant_service.domain.placement import StoreState
from tenant_service.domain.roles import Role
from tenant_service.domain.suspension import REASONS_BY_HAND
from tenantry import Isolation
from tenantry.cli import CommandFailed, Misused, Unreachable, printable

TENANT: dict[str, Any] = {
    "id": str(UUID(int=7)),
    "external_id": None,
    "slug": "acme",
    "name": "Acme \x1b[31m[red]",
    "status": "active",
    "read_only": True,
    "moving": False,
    "suspension_reasons": [],
    "trial_ends_at": None,
    "legal_hold": False,
    "grace_ends_at": None,
    "tier": "standard",
    "region": "eu-1",
    "placement": None,
    "test_clock": None,
    "version": 1,
    "created_at": "2026-01-01T00:00:00Z",
    "activated_at": None,
    "metadata": {},
}

Answer = Callable[[httpx.Request], httpx.Response]


def problem(status: int, kind: str, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"type": kind, "title": "No", "status": status, **more})


def plane(answer: Answer) -> ControlPlane:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": 300})
        return answer(request)

    http = httpx.Client(base_url="http://tenant.test", transport=httpx.MockTransport(respond))
    return ControlPlane(http, Credentials("http://tenant.test", "operator", "secret"), lambda _seconds: None)


@pytest.fixture
def run(monkeypatch):
    """Runs a command against `answer`."""
    client = httpx.Client

    def running(answer: Answer, *arguments: str, typed: str | None = None):
        def respond(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/oauth/token":
                return httpx.Response(200, json={"access_token": "t", "expires_in": 300})
            return answer(request)

        def made(**options: Any) -> httpx.Client:
            return client(transport=httpx.MockTransport(respond), **options)

        monkeypatch.setattr(httpx, "Client", made)
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        monkeypatch.setenv("TENANTRY_TENANT_URL", "http://tenant.test")
        monkeypatch.setenv("TENANTRY_CLIENT_ID", "operator")
        monkeypatch.setenv("TENANTRY_CLIENT_SECRET", "s3cret")
        return CliRunner().invoke(app, list(arguments), input=typed)

    return running


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


@pytest.mark.parametrize("right", [True, False])
def test_a_downloaded_file_is_whole_and_right_or_not_there(run, tmp_path, right):
    content = b"rows"
    file = {
        "service": "app",
        "table": "document",
        "rows": 1,
        "file": "document.ndjson.gz",
        "bytes": 4,
        "sha256": hashlib.sha256(content if right else b"others").hexdigest(),
    }
    export = {"id": "e", "kind": "export", "state": "succeeded", "steps": [], "files": [file]}

    def answer(request: httpx.Request) -> httpx.Response:
        if "/files/" in request.url.path:
            return httpx.Response(200, content=content)
        if request.url.path.endswith("/runs"):
            return httpx.Response(200, json={"items": [export], "next_cursor": None})
        if "/export" in request.url.path:
            return httpx.Response(200, json=export)
        return httpx.Response(200, json=TENANT)

    result = run(answer, "tenants", "export", TENANT["id"], "--to", str(tmp_path))
    assert result.exit_code == (0 if right else 1)
    assert [path.name for path in (tmp_path / "app").iterdir()] == (["document.ndjson.gz"] if right else [])


def exported(chain_id: UUID, length: int) -> list[dict[str, object]]:
    """A chain as the service exports it."""
    lines, previous = [], before_the_first(chain_id)
    for position in range(1, length + 1):
        at = datetime(2026, 1, position, tzinfo=UTC)
        entry = Entry(
            UUID(int=position), chain_id, at, "operator", "operator", "c", None, "a.b", "t", {"n": 1.5}, None, {}
        )
        content = content_hash(entry)
        previous = link(previous, position, content)
        lines.append(
            {
                "chain_id": str(chain_id),
                "position": position,
                "id": str(entry.id),
                "occurred_at": at.isoformat(),
                "actor": {"subject": "operator", "kind": "operator", "credential_id": "c", "impersonator": None},
                "action": "a.b",
                "target": "t",
                "detail": {"n": 1.5},
                "request_id": None,
                "context": {},
                "content_hash": content.hex(),
                "hash": previous.hex(),
            }
        )
    return lines


def test_an_export_is_checked_without_any_service(run, tmp_path):
    file = tmp_path / "trail.ndjson"
    # Two trails in one file, whatever stands first.
    lines = exported(UUID(int=9), 3) + exported(UUID(int=5), 2)

    def verify(*more: str, of: list[dict[str, object]] = lines):
        file.write_text("".join(json.dumps(line) + "\n" for line in of))
        return run(lambda _request: httpx.Response(500), "audit", "verify", "--file", str(file), "--json", *more)

    found = json.loads(verify().stdout)
    assert (found["ok"], found["chains"], found["entries"]) == (True, 2, 5)
    assert verify("--expect", found["digest"]).exit_code == 0

    forged = verify(of=[*lines[:1], {**lines[1], "detail": {"n": 2}}, *lines[2:]])
    assert forged.exit_code == 1
    assert "position 2" in forged.stderr
    assert str(UUID(int=2)) in forged.stderr
    assert "position 2" in verify(of=[lines[0], *lines[2:]]).stderr
    # What is cut at its end holds; only the digest that was kept shows it.
    assert verify(of=lines[:-1]).exit_code == 0
    assert verify("--expect", found["digest"], of=lines[:-1]).exit_code == 1


@pytest.mark.parametrize("line", ["{", "{}", '"text"', "[]"])
def test_a_line_that_is_no_entry_is_named(run, tmp_path, line):
    file = tmp_path / "trail.ndjson"
    file.write_text(line + "\n")
    result = run(lambda _request: httpx.Response(500), "audit", "verify", "--file", str(file))
    assert result.exit_code == 1
    assert "line 1" in result.stderr


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


def batches(refuse: str = "") -> tuple[Answer, list[Any]]:
    """An answer to batches, which are kept; the tenant of the slug `refuse` cannot be made."""
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/tenants/batch"
        tenants = json.loads(request.content)["tenants"]
        sent.append((request.headers["Idempotency-Key"], tenants))
        error = {"type": "slug-taken", "title": "The slug is taken", "status": 409, "detail": "The slug is in use"}
        items = [
            {"tenant": None, "error": error} if each["slug"] == refuse else {"tenant": TENANT | each, "error": None}
            for each in tenants
        ]
        return httpx.Response(202, json={"items": items})

    return answer, sent


@pytest.mark.parametrize(
    "text",
    [
        "slug,name,admin_email,plan,metadata.crm\na,A,a@x.example,pro,17\nb, B ,b@x.example,,\n",
        (
            '{"slug":"a","name":"A","admin_email":"a@x.example","plan":"pro","metadata":{"crm":"17"}}\n\n'
            '{"slug":"b","name":"B","admin_email":"b@x.example"}\n'
        ),
    ],
)
def test_a_file_names_tenants_as_csv_or_as_json_lines(run, tmp_path, text):
    (tmp_path / "tenants").write_text(text)
    answer, sent = batches()
    result = run(answer, "tenants", "import", str(tmp_path / "tenants"), "--tier", "standard")
    assert result.exit_code == 0, result.stderr
    ((_, tenants),) = sent
    assert tenants == [
        {"slug": "a", "name": "A", "tier": "standard", "admin_email": "a@x.example", "plan": "pro",
         "metadata": {"crm": "17"}},
        {"slug": "b", "name": "B", "tier": "standard", "admin_email": "b@x.example"},
    ]  # fmt: skip


def test_a_long_file_is_sent_in_parts_each_under_its_own_key_and_what_was_refused_is_listed(run, tmp_path):
    lines = [json.dumps({"slug": f"t-{number}"}) for number in range(600)]
    (tmp_path / "tenants").write_text("\n".join(lines))
    answer, sent = batches(refuse="t-300")
    result = run(answer, "tenants", "import", str(tmp_path / "tenants"), "--json", "--idempotency-key", "k")
    assert result.exit_code == 1
    assert "1 of 600" in result.stderr
    assert [(key, len(tenants)) for key, tenants in sent] == [("k-0", 250), ("k-250", 250), ("k-500", 100)]
    document = json.loads(result.stdout)
    assert len(document["created"]) == 599
    assert [(each["line"], each["slug"]) for each in document["refused"]] == [(301, "t-300")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("slug,name\na\n", 2),
        ("slug\n\na,b\n", 3),
        ("slug,name\na,A\nb\nc,C\n", 3),
        ('slug,name\na,A\n"b"x,B\nc,C\n', 3),
        ('slug,name\r\n"a","A\r\nA"\r\nb,B\r\nc\r\n', 5),
        ('slug,name\na,A\nb,"B\nc,C\n', 3),
        ('{"slug":\n', 1),
        ('{"slug":"a"}\n\n[]\n{"slug":"c"}\n', 3),
        ('{"slug":"a"}\n{"slug":NaN}\n{"slug":"c"}\n', 2),
        ('{"slug":"a\u2028"}\n' + "{" * 5 + '\n{"slug":"c"}\n', 2),
    ],
)
def test_a_line_that_cannot_be_read_stops_no_other(run, tmp_path, text, line):
    (tmp_path / "tenants").write_text(text)
    answer, sent = batches()
    result = run(answer, "tenants", "import", str(tmp_path / "tenants"), "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [(each["line"], each["error"]["type"]) for each in document["refused"]] == [(line, "unreadable-line")]
    assert len(document["created"]) == sum(len(tenants) for _, tenants in sent)
    assert bool(sent) is ("A" in text or ':"a' in text)


def test_a_line_that_the_service_refuses_stops_no_other(run, tmp_path):
    """The service refuses the request as a whole, and here only the first fault of it at a time."""
    text = "slug,name,admin_email\nokone,A,a@x.example\nBAD SLUG,B,b@x.example\noktwo,C,nobody\nokthree,D,d@x.example\n"
    (tmp_path / "tenants").write_text(text)
    answer, sent = batches()

    def strict(request: httpx.Request) -> httpx.Response:
        for number, tenant in enumerate(json.loads(request.content)["tenants"]):
            for name, bad in (("slug", "BAD SLUG"), ("admin_email", "nobody")):
                if tenant[name] == bad:
                    fault = {"loc": ["body", "tenants", number, name], "msg": "is wrong"}
                    return problem(422, "invalid-request", errors=[fault])
        return answer(request)

    result = run(strict, "tenants", "import", str(tmp_path / "tenants"), "--json", "--idempotency-key", "k")
    assert result.exit_code == 1
    assert [(key, [each["slug"] for each in tenants]) for key, tenants in sent] == [("k-0-2", ["okone", "okthree"])]
    document = json.loads(result.stdout)
    assert len(document["created"]) == 2
    assert [(each["line"], each["slug"], each["error"]["detail"]) for each in document["refused"]] == [
        (3, "BAD SLUG", "slug: is wrong"),
        (4, "oktwo", "admin_email: is wrong"),
    ]
    assert "2 of 4" in result.stderr


def test_what_is_wrong_with_all_of_an_import_is_said_with_its_lines(run, tmp_path):
    (tmp_path / "tenants").write_text("slug\na\nb\n")
    result = run(lambda _request: problem(403, "forbidden"), "tenants", "import", str(tmp_path / "tenants"))
    assert result.exit_code == 1
    assert "of the lines 2 to 3 none is made" in result.stderr


@pytest.mark.parametrize("text", ["", "slug,name\n", "\n\n"])
def test_a_file_without_tenants_makes_nothing(run, tmp_path, text):
    (tmp_path / "tenants").write_text(text)
    answer, sent = batches()
    assert run(answer, "tenants", "import", str(tmp_path / "tenants")).exit_code == 2
    assert not sent


def test_an_import_that_was_cut_names_the_key_of_the_whole_file(run, tmp_path):
    (tmp_path / "tenants").write_text("\n".join(json.dumps({"slug": f"t-{number}"}) for number in range(300)))
    answer, _ = batches()

    def cut(request: httpx.Request) -> httpx.Response:
        if request.headers["Idempotency-Key"] == "k-250":
            raise httpx.ReadError("cut")
        return answer(request)

    result = run(cut, "tenants", "import", str(tmp_path / "tenants"), "--idempotency-key", "k")
    assert result.exit_code == 3
    assert "--idempotency-key k:" in result.stderr


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


def test_a_file_that_cannot_be_written_is_said_before_the_work_is_done(run, tmp_path):
    (tmp_path / "file").write_text("")
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.url.path == "/v1/tenants/acme":
            return httpx.Response(200, json=TENANT)
        if request.url.path == "/v1/tenants":
            return httpx.Response(200, json={"items": [TENANT], "next_cursor": None})
        return httpx.Response(200, text="{}\n")

    for arguments, code in (
        (["tenants", "export", "acme", "--to", str(tmp_path / "file" / "below")], 2),
        (["audit", "export", "acme", "--output", str(tmp_path / "none" / "x")], 1),
        (["audit", "export", "acme", "--output", str(tmp_path / "file" / "x")], 1),
    ):
        result = run(answer, *arguments)
        assert (result.exit_code, result.exception.__class__) == (code, SystemExit)
        assert "error: " in result.stderr
        assert "next: name a f" in result.stderr
    assert "POST" not in asked


def test_a_download_that_breaks_leaves_nothing(tmp_path):
    path = tmp_path / "trail"
    path.write_text("earlier")

    def broken() -> None:
        with whole_file(path) as out:
            out.write(b"half")
            raise ValueError("cut")

    with pytest.raises(ValueError, match="cut"):
        broken()
    assert [each.name for each in tmp_path.iterdir()] == ["trail"]
    assert path.read_text() == "earlier"

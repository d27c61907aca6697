"""The command line as processes, against the service as a process."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import anyio
import anyio.to_thread
import httpx
import pytest
from processes import SERVE, free_port, is_ready
from pydantic import SecretStr
from typer.testing import CliRunner

from tenant_service.commands import app as commands
from tenantry import InvalidRequest, Tenancy, TenancySettings
from tenantry.events import KafkaDirectory, KafkaSettings, RequestResponder, create_topics
from tenantry.http import service_app
from tenantry.testing import eventually

MASTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
COMMAND = (sys.executable, "-c", "from tenantry.cli import main; main()")


@dataclass
class Terminal:
    """Runs commands with an operator's credentials."""

    environment: dict[str, str]

    async def run(self, *arguments: str, typed: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                [*COMMAND, *arguments],
                check=False,
                capture_output=True,
                text=True,
                input=typed,
                env=self.environment,
                timeout=90,
            )
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    async def json(self, *arguments: str, code: int = 0):
        return json.loads((await self.run(*arguments, "--json", code=code)).stdout)


class Inside(Terminal):
    """The same in this process: where only what a command does is asked, not that it starts."""

    async def run(self, *arguments: str, typed: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = await anyio.to_thread.run_sync(
            lambda: CliRunner().invoke(commands, arguments, input=typed, env=self.environment)
        )
        assert done.exit_code == code, (arguments, done.stdout, done.stderr, done.exception)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@pytest.fixture
async def url(database, bootstrap_file, kafka_bootstrap, kafka_prefix, tmp_path) -> AsyncIterator[str]:
    """`tenantry serve --role tenant`; gives the address of its API."""
    await create_topics(kafka_bootstrap, prefix=kafka_prefix)
    address = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        **os.environ,
        **database.environment(),
        "TENANT_PORT": str(port),
        "TENANT_BASE_URL": address,
        "TENANT_MASTER_KEY": MASTER_KEY,
        "TENANT_BOOTSTRAP_FILE": str(bootstrap_file),
        "TENANT_REQUIRED_SERVICES": '["app"]',
        "TENANT_TEST_CLOCKS_ENABLED": "true",
        "TENANT_SAGA_ATTEMPTS": "1",
        "TENANTRY_ISSUER": address,
        "TENANTRY_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "TENANTRY_TOPIC_PREFIX": kafka_prefix,
    }
    async with await anyio.open_process([*SERVE, "tenant"], env=environment, stdout=None, stderr=None) as served:
        async with httpx.AsyncClient(base_url=address) as http:
            await eventually(partial(is_ready, http), within=60)
        yield address
        served.terminate()
        with anyio.fail_after(60):
            assert await served.wait() == 0


@dataclass
class App:
    """The only service that provisioning waits for; `fault` is why it refuses."""

    fault: str | None = None

    async def provision(self, _request: object) -> dict[str, object]:
        if self.fault is not None:
            raise InvalidRequest(self.fault)
        return {}


@pytest.fixture
async def app(url, database, kafka_bootstrap, kafka_prefix) -> AsyncIterator[App]:
    played = App()
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    async with database.databases() as databases:
        responder = RequestResponder("app", kafka, databases.system, {"tenant.provision": played.provision})
        task = asyncio.create_task(responder.run())
        yield played
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
def terminal(url, tmp_path) -> Terminal:
    operator = tmp_path / "operator.json"
    operator.write_text(
        json.dumps({"client_id": "operator", "client_secret": "operator-secret", "urls": {"tenant": url}})
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")}
    return Terminal({**kept, "TENANTRY_OPERATOR_FILE": str(operator), "NO_COLOR": "1"})


def create(slug: str) -> tuple[str, ...]:
    return ("tenants", "create", slug, "--name", "Some [bold]GmbH", "--tier", "standard", "--email", "a@x.example")


async def test_a_tenant_from_its_creation_to_its_certificate(terminal, app, url, tmp_path):
    slug = "whole-life"
    made = await terminal.run(*create(slug), "--wait", "--external-id", "org-whole")
    assert "provision: activate: succeeded" in made.stderr
    assert "active" in made.stdout
    listed = await terminal.json("tenants", "list", "-q", slug)
    (tenant,) = listed["items"]
    assert (tenant["slug"], tenant["status"]) == (slug, "active")
    table = (await terminal.run("tenants", "list", "-q", slug)).stdout
    assert any(slug in line and "Some [bold]GmbH" in line and tenant["id"] in line for line in table.splitlines())
    for reference in (slug, tenant["id"], "org-whole"):
        assert (await terminal.json("tenants", "show", reference))["id"] == tenant["id"]

    again = await terminal.run(*create(slug), code=1)
    assert slug in again.stderr
    assert "next: choose another" in again.stderr
    assert not again.stdout

    suspended = await terminal.json("tenants", "suspend", slug, "--reason", "billing", "--note", "unpaid")
    assert suspended["suspension_reasons"] == ["billing"]
    assert "active" in (await terminal.run("tenants", "reactivate", slug, "--reason", "billing")).stdout

    refused = await terminal.run("tenants", "offboard", slug, "--grace-days", "0", typed="other\n", code=1)
    assert "nothing was done" in refused.stderr
    assert "--yes" in (await terminal.run("tenants", "offboard", slug, code=1)).stderr
    assert (await terminal.json("tenants", "show", slug))["status"] == "active"
    await terminal.run("tenants", "offboard", slug, "--grace-days", "30", "--no-export", typed=f"{slug}\n")
    early = await terminal.run("tenants", "purge", slug, "--yes", code=1)
    assert "cancel-offboarding" in early.stderr
    await terminal.run("tenants", "cancel-offboarding", slug)
    await terminal.run("tenants", "offboard", slug, "--grace-days", "0", "--no-export", "--yes")
    certified = json.loads((await terminal.run("tenants", "purge", slug, "--yes", "--wait", "--json")).stdout)
    assert certified["certificate"]["tenant_id"] == tenant["id"]
    summary = (await terminal.run("tenants", "certificate", tenant["id"])).stdout
    assert certified["digest"] in summary


async def test_a_run_that_sticks_is_named_with_the_command_that_goes_on(terminal, app):
    app.fault = "no room in the cellar"
    stuck = await terminal.run(*create("stuck"), "--wait", code=1)
    assert "no room in the cellar" in stuck.stderr
    advice = next(line for line in stuck.stderr.splitlines() if line.startswith("next:"))
    command = advice.partition("`tenantry ")[2].partition("`")[0].split()
    app.fault = None
    await terminal.run(*command)
    assert (await terminal.json("tenants", "show", "stuck"))["status"] == "active"


async def test_configuration_is_set_compared_and_taken_back(terminal, url, tmp_path):
    await define_namespace(url, "colours")
    await terminal.run(*create("painted"))
    place = ("painted", "colours")
    await terminal.json("config", "set", *place, 'theme.primary="red"', "size=3")
    second = await terminal.json("config", "set", *place, 'theme.primary="blue"')
    assert second["document"] == {"theme": {"primary": "blue"}, "size": 3}
    assert second["version"] == 2
    found = await terminal.json("config", "diff", *place, "1", "2")
    assert found["items"] == [{"op": "replace", "pointer": "/theme/primary", "before": "red", "after": "blue"}]
    back = await terminal.json("config", "rollback", *place, "1")
    assert (back["version"], back["document"]["theme"]) == (3, {"primary": "red"})
    assert (await terminal.json("config", "unset", *place, "size"))["document"] == {"theme": {"primary": "red"}}
    await terminal.json("config", "set", "colours", "size=9", "--layer", "platform")
    effective = await terminal.json("config", "get", *place, "--provenance")
    assert effective["document"] == {"theme": {"primary": "red"}, "size": 9}
    shown = (await terminal.run("config", "get", *place, "--provenance")).stdout
    assert any("/size" in line and "platform" in line for line in shown.splitlines())
    document = tmp_path / "document.json"
    document.write_text('{"size": 1}')
    assert (await terminal.json("config", "set", *place, "--file", str(document)))["document"] == {"size": 1}
    refused = await terminal.run("config", "set", *place, 'size="much"', code=1)
    assert "size" in refused.stderr
    assert "quotes" in (await terminal.run("config", "set", *place, "size=much", code=2)).stderr
    await terminal.run("config", "unset", *place, "--all")
    assert (await terminal.json("config", "set", *place, "size=2"))["document"] == {"size": 2}


async def test_the_other_nouns_do_what_their_routes_do(terminal, tmp_path):
    terminal = Inside(terminal.environment)
    tenant = await terminal.json(*create("nouns"))
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "integer"}}}')
    assert "version 1" in (await terminal.run("config", "schemas", "set", "n-nouns", "-f", str(schema))).stdout
    kept = await terminal.json("config", "schemas", "show", "n-nouns")
    (tmp_path / "kept.json").write_text(json.dumps({**kept, "writable_by": "operator"}))
    again = await terminal.json("config", "schemas", "set", "n-nouns", "-f", str(tmp_path / "kept.json"))
    assert (again["version"], again["writable_by"]) == (2, "operator")
    stale = await terminal.run("config", "schemas", "set", "n-nouns", "-f", str(tmp_path / "kept.json"), code=1)
    assert "look at it again" in stale.stderr
    names = {each["namespace"] for each in (await terminal.json("config", "schemas", "list", "--all"))["items"]}
    assert {"n-nouns", "limits", "branding", "features"} <= names

    tier = tmp_path / "tier.json"
    for connections in (2, 5):
        tier.write_text(json.dumps({"limits": {"connections": connections}}))
        await terminal.run("tiers", "set", "t-nouns", "-f", str(tier))
    assert [each["version"] for each in (await terminal.json("tiers", "versions", "t-nouns"))["items"]] == [2, 1]
    difference = (await terminal.json("tiers", "diff", "t-nouns", "1"))["items"]
    assert [(each["pointer"], each["before"], each["after"]) for each in difference] == [("/limits/connections", 2, 5)]
    assert (await terminal.json("tiers", "rollback", "t-nouns", "1"))["limits"] == {"connections": 2}
    said = await terminal.run(
        "config", "set", "limits", "connections=9", "--layer", "tier", "--name", "t-nouns", code=1
    )
    assert "`tenantry tiers set`" in said.stderr
    await terminal.json("config", "set", "nouns", "limits", "connections=9")
    held = await terminal.json("config", "get", "nouns", "limits", "--provenance")
    assert (held["document"]["connections"], held["provenance"]["/connections"]["layer"]) == (9, "tenant")

    await terminal.run("flags", "set", "f-nouns", "--percentage", "25", "--description", "half of a half")
    changed = await terminal.json("flags", "set", "f-nouns", "--percentage", "50")
    assert (changed["rollout"]["percentage"], changed["description"]) == (50, "half of a half")
    assert (await terminal.json("flags", "set", "f-nouns", "--on"))["default"] == "on"
    assert "f-nouns" in (await terminal.run("flags", "list", "--all")).stdout
    assert (await terminal.json("flags", "get", "f-nouns"))["version"] == 3
    (feature,) = [
        each for each in (await terminal.json("flags", "of", "nouns", "--all"))["items"] if each["name"] == "f-nouns"
    ]
    assert feature["value"] is True
    assert "say what to change" in (await terminal.run("flags", "set", "f-nouns", code=2)).stderr

    logo = tmp_path / "logo.png"
    logo.write_bytes(PICTURE)
    await terminal.run("branding", "set", "nouns", "--name", "Nouns", "--primary", "#112233")
    shown = await terminal.json("branding", "set", "nouns", "--accent", "#445566", "--logo", str(logo))
    assert (shown["name"], shown["colours"]["primary"], shown["colours"]["accent"]) == ("Nouns", "#112233", "#445566")
    assert shown["logo"]["media_type"] == "image/png"
    assert await terminal.json("branding", "show", "nouns") == shown
    logo.write_bytes(b"no picture")
    assert (await terminal.run("branding", "set", "nouns", "--logo", str(logo), code=1)).stderr

    made = await terminal.json("invitations", "create", "nouns", "new@x.example", "--role", "viewer")
    assert made["code"]
    twice = await terminal.run("invitations", "create", "nouns", "new@x.example", "--role", "viewer", code=1)
    assert "invitations resend" in twice.stderr
    sent = await terminal.json("invitations", "resend", "nouns", made["id"])
    assert sent["code"] != made["code"]
    await terminal.run("invitations", "revoke", "nouns", made["id"])
    of_all = (await terminal.json("invitations", "list", "nouns"))["items"]
    (listed,) = [each for each in of_all if each["id"] == made["id"]]
    assert (listed["state"], "code" in listed) == ("revoked", False)

    revoked = await terminal.json("revocations", "add", "https://idp.test", "someone", "--tenant", "nouns")
    assert revoked["tenant_id"] == tenant["id"]
    assert "someone" in (await terminal.run("revocations", "list", "nouns")).stdout
    await terminal.run("revocations", "lift", revoked["id"], "--tenant", "nouns")
    assert (await terminal.json("revocations", "list", "nouns"))["items"] == []

    clock = await terminal.json("clocks", "create", "2026-01-01T00:00:00+0000")
    moved = await terminal.json("clocks", "advance", clock["id"], "2026-02-01T00:00:00+0000", "--wait")
    assert (moved["now"][:10], moved["status"]) == ("2026-02-01", "ready")
    assert (await terminal.json("clocks", "show", clock["id"]))["id"] == clock["id"]


PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def define_namespace(url: str, name: str) -> None:
    schema = {
        "type": "object",
        "properties": {"theme": {"type": "object"}, "size": {"type": "integer"}},
        "additionalProperties": False,
    }
    grant = {
        "grant_type": "client_credentials",
        "client_id": "operator",
        "client_secret": "operator-secret",
        "audience": "tenant",
    }
    async with httpx.AsyncClient(base_url=url) as http:
        token = (await http.post("/oauth/token", data=grant)).raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        (await http.put(f"/v1/config-schemas/{name}", json={"schema": schema}, headers=headers)).raise_for_status()


async def test_a_key_is_shown_once_and_made_once(terminal):
    await terminal.run(*create("keyed"))
    wanted = ("keys", "create", "keyed", "--name", "ci", "--scope", "tenant:read")
    made = await terminal.json(*wanted, "--idempotency-key", "once")
    assert made["key"].startswith(made["prefix"])
    again = await terminal.run(*wanted, "--idempotency-key", "once", code=1)
    assert "revoke" in again.stderr
    listed = await terminal.run("keys", "list", "keyed")
    assert made["id"] in listed.stdout
    assert made["key"] not in listed.stdout
    turned = await terminal.json("keys", "rotate", "keyed", made["id"], "--overlap", "0")
    await terminal.run("keys", "revoke", "keyed", turned["id"])
    ended = (await terminal.json("keys", "list", "keyed", "--all"))["items"]
    assert {each["id"] for each in ended if each["revoked_at"]} >= {turned["id"]}


async def test_when_a_key_was_last_used_comes_from_the_service_that_accepted_it(
    terminal, app, url, kafka_bootstrap, kafka_prefix
):
    await terminal.run(*create("used"), "--wait")
    made, idle = [
        await terminal.json("keys", "create", "used", "--name", name, "--scope", "tenant:read") for name in ("a", "b")
    ]
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    settings = TenancySettings(issuer=url, client_id="app", client_secret=SecretStr("app-secret"), key_use_seconds=0.1)
    tenancy = Tenancy("app", settings, source=KafkaDirectory(kafka))
    product = service_app(title="A product", service="app", max_body_bytes=1024)

    @product.get("/v1/things")
    async def list_things() -> list[str]:
        return []

    tenancy.install(product)

    async def last_used() -> dict[str, str | None]:
        listed = (await terminal.json("keys", "list", "used"))["items"]
        return {each["id"]: each["last_used_at"] for each in listed}

    assert await last_used() == {made["id"]: None, idle["id"]: None}
    transport = httpx.ASGITransport(product)
    async with tenancy.run(), httpx.AsyncClient(transport=transport, base_url="http://app.test") as http:
        await eventually(lambda: tenancy.directory.ready and tenancy.credentials.find(made["key"]), within=60)
        before = datetime.now(UTC).replace(microsecond=0)
        answer = await http.get("/v1/things", headers={"Authorization": f"Bearer {made['key']}"})
        assert answer.status_code == 200, answer.text
        # With the end of the process at the latest.
    told = await last_used()
    at = told[made["id"]]
    assert at is not None
    assert before <= datetime.fromisoformat(at) <= datetime.now(UTC)
    assert told[idle["id"]] is None


async def test_a_person_is_taken_out_of_a_trail_that_still_holds(terminal):
    await terminal.run(*create("named"))
    await terminal.run("keys", "create", "named", "--name", "alice@example.com", "--scope", "tenant:read")
    assert "alice@example.com" in (await terminal.run("audit", "list", "named", "--json")).stdout
    assert (await terminal.json("audit", "erase", "named", "alice@example.com"))["entries"] == 1
    assert "0 entries changed" in (await terminal.run("audit", "erase", "named", "alice@example.com")).stdout
    assert "alice@example.com" not in (await terminal.run("audit", "list", "named", "--json")).stdout
    assert (await terminal.json("audit", "verify", "named"))["ok"]


async def test_a_trail_that_was_tampered_with_is_named_by_its_row_online_and_off(terminal, database, tmp_path):
    await terminal.run(*create("watched"))
    for name in ("one", "another"):
        await terminal.run("keys", "create", "watched", "--name", name, "--scope", "tenant:read")
    file = tmp_path / "trail.ndjson"
    await terminal.run("audit", "export", "watched", "--output", str(file))
    offline = await terminal.json("audit", "verify", "--file", str(file))
    online = await terminal.json("audit", "verify", "watched")
    assert offline == online
    assert online["ok"]
    await terminal.run("audit", "verify", "watched", "--expect", online["digest"])
    await terminal.run("audit", "verify", "--file", str(file), "--expect", "00" * 32, code=1)

    tenant = await terminal.json("tenants", "show", "watched")
    async with database.connect() as connection:
        entry = await connection.fetchval(
            "SELECT id FROM system.audit_entry WHERE chain_id = $1::uuid AND position = 2", tenant["id"]
        )
        kept = await connection.fetchval("SELECT detail FROM system.audit_entry WHERE id = $1", entry)
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute("UPDATE system.audit_entry SET detail = '{\"forged\": 1}' WHERE id = $1", entry)
    try:
        broken = await terminal.run("audit", "verify", "watched", code=1)
        assert "position 2" in broken.stderr
        assert str(entry) in broken.stderr
        assert not (await terminal.json("audit", "verify", "--all", code=1))["ok"]
        await terminal.run("audit", "export", "watched", "--output", str(file))
        assert str(entry) in (await terminal.run("audit", "verify", "--file", str(file), code=1)).stderr
    finally:
        async with database.connect() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute("UPDATE system.audit_entry SET detail = $2 WHERE id = $1", entry, kept)


async def test_what_is_wrong_is_said_with_what_to_do_next(terminal, tmp_path):
    missing = await terminal.run("tenants", "show", "nobody", code=1)
    assert "'nobody'" in missing.stderr
    refused = await terminal.run(*create("UPPER CASE"), code=1)
    assert "slug" in refused.stderr
    lines = [("okone", "a@x.example"), ("BAD SLUG", "a@x.example"), ("oktwo", "nobody"), ("okthree", "a@x.example")]
    file = tmp_path / "some.csv"
    file.write_text("slug,name,admin_email\n" + "".join(f"{slug},T,{email}\n" for slug, email in lines))
    some = await terminal.json("tenants", "import", str(file), "--tier", "standard", code=1)
    assert [each["slug"] for each in some["created"]] == ["okone", "okthree"]
    assert [(each["line"], each["slug"]) for each in some["refused"]] == [(3, "BAD SLUG"), (4, "oktwo")]
    no_tier = await terminal.run("config", "set", "features", "a=1", "--layer", "tier", "--name", "gold", code=1)
    assert "There is no tier 'gold'" in no_tier.stderr
    assert "tiers list" in no_tier.stderr
    no_version = await terminal.run("tiers", "diff", "standard", "1", "99", code=1)
    assert "no version 99" in no_version.stderr
    terminal.environment["TENANTRY_CLIENT_SECRET"] = "hunter-two"
    denied = await terminal.run("tenants", "list", code=1)
    assert "TENANTRY_CLIENT_SECRET" in denied.stderr
    assert "hunter-two" not in denied.stderr
    terminal.environment["TENANTRY_TENANT_URL"] = f"http://127.0.0.1:{free_port()}"
    away = await terminal.run("tenants", "list", code=3)
    assert "make up" in away.stderr
    terminal.environment["TENANTRY_OPERATOR_FILE"] = str(tmp_path / "none.json")
    del terminal.environment["TENANTRY_CLIENT_SECRET"]
    assert "make up" in (await terminal.run("tenants", "list", code=1)).stderr

"""Tokens in the place of values: one for a value whoever takes it in, durable before 202, and read back by few."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from obstore.store import LocalStore
from sqlalchemy.exc import OperationalError

from tenantry import Tier, Unavailable
from tenantry.identity import Scope
from tenantry.testing import eventually
from usage_service.archive.store import ArchiveStore
from usage_service.domain.field_rules import TOKEN_PREFIX, FieldRules, Treatment
from usage_service.tokens.repository import resolve_tokens
from usage_service.tokens.vault import KEPT_SECONDS, TokenVault, TreatedFields

from .support import NUMBERS, event, open_usage
from .test_erasure import ask, finish
from .test_http import endpoint_of, through

RESOLVE = "usage_service.tokens.vault.resolve_tokens"
RULES: dict[str, Any] = {"http.request": {"$.user": "tokenise"}}
BY_USER = {"event_type": "http.request", "aggregation": "count", "group_by": {"user": "$.user"}}
UNIQUE = {"event_type": "http.request", "aggregation": "unique_count", "value": "$.user"}


@pytest.fixture
async def usage(service_database, kafka_bootstrap, kafka_prefix, tenant_a, tenant_b, tmp_path):
    """The HTTP application, which makes tokens of users."""
    database = service_database("usage")
    await database.truncate()
    service = await open_usage(database, kafka_bootstrap, f"{kafka_prefix}{next(NUMBERS)}.")
    service.state.directory.upsert_tier(Tier(name="standard", version=1))
    for tenant in (tenant_a, tenant_b):
        service.state.directory.upsert(tenant)
    async with service.running(fields=RULES):
        yield service


class Ticks:
    """A monotonic clock as a test wants it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """How many statements went to the vault, and with how many values."""

    def __init__(self, monkeypatch) -> None:
        self.sizes: list[int] = []

        async def counted(session, asked):
            self.sizes.append(len(asked))
            return await resolve_tokens(session, asked)

        monkeypatch.setattr(RESOLVE, counted)


def rules() -> FieldRules:
    return FieldRules({"http.request": {"$.user": Treatment.TOKENISE}}, b"")


def treated(usage, clock=None) -> TreatedFields:
    return TreatedFields(rules(), TokenVault(usage.databases, clock=clock or Ticks()))


async def tokens_of(fields: TreatedFields, tenant, users: list[Any]) -> list[str]:
    def parse(found):
        documents = [{"user": user} for user in users]
        for document in documents:
            found.apply("http.request", str(tenant.id), document)
        return [str(document["user"]) for document in documents]

    return await fields.read(parse)


def users_of(tenant, users, first=0) -> list[dict[str, Any]]:
    return [event(tenant, first + number, data={"user": user, "bytes": 1}) for number, user in enumerate(users)]


async def stored_users(usage, tenant) -> list[str]:
    rows = await usage.fetch("SELECT data FROM pool.usage_event WHERE tenant_id = $1 ORDER BY event_id", tenant.id)
    return [json.loads(row["data"])["user"] for row in rows]


def revealer(usage) -> dict[str, str]:
    return usage.state.key(Scope.PLATFORM, Scope.TOKENS)


async def test_events_hold_tokens_and_operators_read_them_back(usage, tenant_a, tenant_b):
    await usage.put_meter("by-user", BY_USER)
    await usage.put_meter("users", UNIQUE)
    async with usage.metering():
        sent = await usage.send(*users_of(tenant_a, ["alice", "bob", "alice", 42]), *users_of(tenant_b, ["alice"]))
        assert sent.status_code == 202, sent.text
        await eventually(usage.counted, within=60)
    alice, bob, again, number = await stored_users(usage, tenant_a)
    assert alice == again
    assert len({alice, bob, number, *(await stored_users(usage, tenant_b))}) == 4
    assert all(token.startswith(TOKEN_PREFIX) for token in (alice, bob, number))
    span = {"from": "2026-01-01T00:00:00Z", "to": datetime.now(UTC).isoformat()}
    assert (await usage.query(tenant_a, "users", **span))["items"][0]["value"] == "3"

    async def read(token, tenant, headers):
        return await usage.http.get(f"/v1/tokens/{token}", params={"tenant_id": str(tenant.id)}, headers=headers)

    found = await read(alice, tenant_a, revealer(usage))
    assert (found.status_code, found.json()["value"]) == (200, "alice")
    assert (await read(number, tenant_a, revealer(usage))).json()["value"] == "42"
    assert (await read(alice, tenant_b, revealer(usage))).status_code == 404
    assert (await read(alice, tenant_a, usage.operator)).status_code == 403
    assert (await read(alice, tenant_a, usage.tenant_key(tenant_a))).status_code == 403
    assert (await usage.http.get(f"/v1/tokens/{alice}", headers=revealer(usage))).status_code == 422
    listed = await usage.http.get("/v1/token-readings", params={"tenant_id": str(tenant_a.id)}, headers=usage.operator)
    assert [each["token"] for each in listed.json()["items"]] == [number, alice]


async def test_a_person_who_is_erased_takes_the_token_away(usage, tenant_a, tmp_path):
    usage.archive = ArchiveStore(LocalStore(tmp_path), tmp_path)
    async with usage.metering():
        await usage.send(*users_of(tenant_a, ["alice", "bob"]))
        await eventually(usage.counted, within=60)
    alice, bob = await stored_users(usage, tenant_a)
    done = await finish(usage, (await ask(usage, tenant_a)).json()["id"])
    assert done["rows"] == {"token": 1}
    params = {"tenant_id": str(tenant_a.id)}
    gone = await usage.http.get(f"/v1/tokens/{alice}", params=params, headers=revealer(usage))
    assert gone.status_code == 404
    assert (await usage.http.get(f"/v1/tokens/{bob}", params=params, headers=revealer(usage))).status_code == 200
    assert await stored_users(usage, tenant_a) == [alice, bob]


async def test_processes_that_meet_a_value_together_give_it_one_token(usage, tenant_a):
    processes = [treated(usage) for _ in range(6)]
    for turn in range(5):
        users = [f"user-{turn}-{number}" for number in range(40)]
        found = await asyncio.gather(*[
            tokens_of(each, tenant_a, users[shift:] + users[:shift]) for shift, each in enumerate(processes)
        ])  # fmt: skip
        expected = dict(zip(users, found[0], strict=True))
        for shift, tokens in enumerate(found):
            assert tokens == [expected[user] for user in users[shift:] + users[:shift]]
    [[count]] = await usage.fetch("SELECT count(*) FROM pool.token")
    assert count == 200


async def test_nothing_is_sent_before_its_token_is_durable(usage, tenant_a):
    seen: list[bool] = []

    class Looking:
        async def send(self, events):
            for _, value in events:
                token = json.loads(value)["data"]["user"]
                found = await usage.fetch("SELECT value FROM pool.token WHERE token = $1", token)
                seen.append([row["value"] for row in found] == [json.loads(value)["id"]])

    endpoint = endpoint_of(usage, Looking(), fields=treated(usage))
    users = [f"u-{number}" for number in range(20)]
    events = [{**each, "id": user} for each, user in zip(users_of(tenant_a, users), users, strict=True)]
    for each in (*events[:10], *events):
        assert (await through(endpoint, usage, each)).status_code == 202
    assert seen == [True] * 30


async def test_a_request_costs_one_statement_and_known_values_none(usage, tenant_a, monkeypatch):
    asked, clock = Asked(monkeypatch), Ticks()
    fields = treated(usage, clock)
    first = await tokens_of(fields, tenant_a, list(range(100)))
    assert asked.sizes == [100]
    assert await tokens_of(fields, tenant_a, list(range(100))) == first
    assert asked.sizes == [100]
    assert await tokens_of(fields, tenant_a, [*range(95, 105)]) != first
    assert asked.sizes == [100, 5]
    clock.now += KEPT_SECONDS
    assert await tokens_of(fields, tenant_a, list(range(100))) == first
    assert asked.sizes == [100, 5, 100]


async def test_a_token_that_is_gone_is_given_for_a_minute_and_never_again(usage, tenant_a):
    clock = Ticks()
    fields, other = treated(usage, clock), treated(usage)
    [before] = await tokens_of(fields, tenant_a, ["alice"])
    await usage.fetch("DELETE FROM pool.token")
    assert await tokens_of(fields, tenant_a, ["alice"]) == [before]
    clock.now += KEPT_SECONDS
    [after] = await tokens_of(fields, tenant_a, ["alice"])
    assert after != before
    assert await tokens_of(other, tenant_a, ["alice"]) == [after]
    assert [row["token"] for row in await usage.fetch("SELECT token FROM pool.token")] == [after]


async def test_a_vault_that_is_away_is_told_and_known_values_go_on(usage, tenant_a, monkeypatch):
    fields = treated(usage)
    known = await tokens_of(fields, tenant_a, ["alice"])

    async def away(*_):
        raise OperationalError("", None, Exception())

    monkeypatch.setattr(RESOLVE, away)
    assert await tokens_of(fields, tenant_a, ["alice"]) == known
    with pytest.raises(Unavailable):
        await tokens_of(fields, tenant_a, ["bob"])
    refused = await usage.send(*users_of(tenant_a, ["bob"]))
    assert refused.status_code == 503


async def test_a_dry_run_keeps_nothing(usage, tenant_a):
    assert (await usage.send(*users_of(tenant_a, ["alice"]), dry_run="true")).status_code == 200
    assert await usage.fetch("SELECT FROM pool.token") == []


async def test_what_replaces_an_event_has_tokens_too(usage, tenant_a):
    async with usage.metering():
        first = event(tenant_a, 1, data={"user": "alice"})
        assert (await usage.send(first)).status_code == 202
        await eventually(usage.counted, within=60)
        replacement = {key: first[key] for key in ("specversion", "source", "type", "time")}
        body = {
            "cancels": {"source": first["source"], "id": first["id"], "time": first["time"]},
            "replacement": {**replacement, "id": "e-2", "data": {"user": "alice", "bytes": 2}},
        }
        params = {"tenant_id": str(tenant_a.id)}
        done = await usage.http.post("/v1/events/correct", json=body, params=params, headers=usage.operator)
        assert done.status_code == 202, done.text
        await eventually(usage.counted, within=60)
    users = await stored_users(usage, tenant_a)
    assert len(users) == 2
    assert len(set(users)) == 1
    assert users[0].startswith(TOKEN_PREFIX)

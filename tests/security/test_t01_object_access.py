"""T1: every operation of the tenant service, asked by an administrator of tenant A about what is tenant B's.

The app's operations are swept by tests/isolation/test_routes.py. The requests are generated: a new route is covered
from its first day, and one with a parameter that nobody gave a value for fails until somebody says what it names.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
from comparable import comparable
from people import run_people
from secret_watch import watched
from sql_statements import statements_sent
from tenant_openapi import openapi

from tenantry.testing import route_operations

OPERATIONS = list(route_operations(openapi()))
OF_TENANTS = [each for each in OPERATIONS if "tenant_id" in each.path_parameters]
OWNED = {"key_id", "member_id", "invitation_id", "domain", "grant_id", "run_id", "export_id", "revocation_id"}
NESTED = [each for each in OF_TENANTS if OWNED & set(each.path_parameters)]
PAGED = [each for each in OF_TENANTS if any(query["name"] == "cursor" for query in each.query)]
# Values of bodies that the examples of the schemas cannot guess.
BODIES = {
    "email": "somebody@example.org",
    "ends_at": "2040-01-01T00:00:00Z",
    "expires_at": "2040-01-01T00:00:00Z",
    "reason": "abuse",
}
UNKNOWN = {"clock_id": str(uuid4()), "service_name": "app", "file": "documents.jsonl.gz"}


@dataclass
class Side:
    """A tenant with something of everything, and an administrator's key."""

    tenant_id: str
    key: str
    ids: dict[str, str]
    words: list[str] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


async def side(people, letter: str) -> Side:
    tenant_id = await people.tenant(name=watched(f"Canary {letter} {uuid4().hex}"))
    base = f"/v1/tenants/{tenant_id}"

    async def made(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await people.http.post(base + path, json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    key = await made("/api-keys", {"name": f"key {letter}", "scopes": ["tenant:admin"]})
    await made("/api-keys", {"name": f"second {letter}", "scopes": ["tenant:read"]})
    people_ids = [
        await made("/members", {"email": f"{uuid4().hex}@example.org", "roles": ["viewer"]}) for _ in range(2)
    ]
    invitation = await people.invite(tenant_id, "viewer")
    domain = await made("/domains", {"domain": f"{uuid4().hex}.example.org"})
    grant = await people.support(tenant_id)
    revocation = await made("/revocations", {"issuer": "https://idp.example.org", "subject": uuid4().hex})
    export = await people.http.post(f"{base}/export")
    assert export.status_code == 202, export.text
    runs = (await people.http.get(f"{base}/runs")).json()["items"]
    config = await people.http.put(f"{base}/config/branding", json={"name": f"Canary {letter}"})
    assert config.status_code == 201, config.text
    ids = {
        "tenant_id": tenant_id,
        "key_id": key["id"],
        "member_id": people_ids[0]["id"],
        "invitation_id": invitation["id"],
        "domain": domain["domain"],
        "grant_id": grant["id"],
        "run_id": runs[0]["id"],
        "export_id": export.json()["id"],
        "revocation_id": revocation["id"],
        "namespace": "branding",
        "version": "1",
        **UNKNOWN,
    }
    owned = [value for name, value in ids.items() if name in OWNED | {"tenant_id"}]
    return Side(tenant_id, key["key"], ids, [*owned, *(each["email"] for each in people_ids)])


def unknown(ids: dict[str, str], names: set[str]) -> dict[str, str]:
    replaced = {name: "nobody.example.org" if name == "domain" else str(uuid4()) for name in names}
    return {**ids, **replaced}


async def fingerprint(people, tenant: Side) -> dict[str, str]:
    """A hash of every row of the tenant in every table that names tenants."""
    tables = await people.rows(
        "SELECT table_schema || '.' || table_name AS name FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE column_name = 'tenant_id' AND table_type = 'BASE TABLE' AND table_name <> 'idempotency_key'"
    )
    statements = [f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) AS sum FROM {table['name']} t"
                  " WHERE tenant_id = $1" for table in tables]  # fmt: skip
    statements.append("SELECT md5(t::text) AS sum FROM system.tenant t WHERE id = $1")
    return {each: (await people.rows(each, tenant.tenant_id))[0]["sum"] for each in statements}


async def answered(http: httpx.AsyncClient, request: httpx.Request) -> tuple[httpx.Response, list[str]]:
    """The answer, and the statements that it took."""
    with statements_sent() as sent:
        return await http.send(request), sent


def leaks(response: httpx.Response, tenant: Side, asked: httpx.Request) -> list[str]:
    given = str(asked.url) + asked.content.decode("latin-1")
    return [word for word in tenant.words if word in response.text and word not in given]


@pytest.fixture
async def people(tenant_database, tmp_path):
    async with run_people(tenant_database, tmp_path, export_url=tmp_path.as_uri()) as people:
        yield people


@pytest.fixture
async def a(people) -> Side:
    return await side(people, "a")


@pytest.fixture
async def b(people) -> Side:
    return await side(people, "b")


async def test_ids_of_b_are_ids_of_nothing(people, a, b):
    """Paths, with A's administrator; what only operators may do is refused for A's own tenant alike."""
    http, before, faults = await people.client(a.key), await fingerprint(people, b), []
    assert any(before.values())
    for operation in OF_TENANTS:
        asked = operation.request(b.ids | BODIES, headers=a.headers)
        foreign, work = await answered(http, asked)
        nothing, as_much = await answered(
            http, operation.request(unknown(b.ids, OWNED | {"tenant_id"}) | BODIES, headers=a.headers)
        )
        if work != as_much:
            faults.append(f"{operation}: {len(work)} statements tell of B, nothing takes {len(as_much)}")
        if comparable(foreign) != comparable(nothing) or foreign.status_code not in {403, 404}:
            faults.append(f"{operation}: {foreign.status_code} {foreign.text}, unknown: {nothing.status_code}")
        if leaks(foreign, b, asked):
            faults.append(f"{operation} shows {leaks(foreign, b, asked)}")
        if foreign.status_code == 403 and operation.safe:
            own = await http.send(operation.request(a.ids | BODIES, headers=a.headers))
            if own.status_code != 403:
                faults.append(f"{operation}: 403 tells of B, A's own is {own.status_code}")
    assert not faults, "\n".join(faults)
    assert await fingerprint(people, b) == before


async def test_nested_ids_of_b_under_a_are_ids_of_nothing(people, a, b):
    http, before, faults = await people.client(a.key), await fingerprint(people, b), []
    for operation in NESTED:
        names = OWNED & set(operation.path_parameters)
        asked = operation.request(b.ids | {"tenant_id": a.tenant_id} | BODIES, headers=a.headers)
        foreign, work = await answered(http, asked)
        nothing, as_much = await answered(http, operation.request(unknown(a.ids, names) | BODIES, headers=a.headers))
        if work != as_much:
            faults.append(f"{operation}: {len(work)} statements tell of B, nothing takes {len(as_much)}")
        if comparable(foreign) != comparable(nothing) or foreign.status_code not in {403, 404}:
            faults.append(f"{operation}: {foreign.status_code} {foreign.text}, unknown: {nothing.status_code}")
    assert not faults, "\n".join(faults)
    assert await fingerprint(people, b) == before


async def test_cursors_and_words_of_b_find_nothing_of_b(people, a, b):
    http, before = await people.client(a.key), await fingerprint(people, b)
    for operation in PAGED:
        first = await people.http.send(
            operation.request(b.ids, query={"limit": "1"}, headers=dict(people.http.headers))
        )
        query = {each["name"]: b.tenant_id for each in operation.query if each["name"] not in {"limit", "cursor"}}
        for extra in ({"cursor": first.json().get("next_cursor") or "x"}, query):
            asked = operation.request(a.ids, query=extra, headers=a.headers)
            answer = await http.send(asked)
            assert answer.status_code < 500, answer.text
            assert not leaks(answer, b, asked), f"{operation}: {answer.text}"
    assert await fingerprint(people, b) == before


async def test_bodies_that_name_b_change_nothing_of_b(people, a, b):
    http, before = await people.client(a.key), await fingerprint(people, b)
    for operation in OPERATIONS:
        if (
            operation.body_schema is None
            or "tenant_id" in operation.path_parameters
            or operation.path == "/oauth/token"
        ):
            continue
        asked = operation.request(b.ids | {"name": "features"} | BODIES, headers=a.headers)
        answer = await http.send(asked)
        assert answer.status_code in {400, 401, 403, 404, 422}, f"{operation}: {answer.status_code} {answer.text}"
        assert not leaks(answer, b, asked)
    assert await fingerprint(people, b) == before


async def test_an_idempotency_key_of_b_replays_nothing_to_a(people, a, b):
    http, repeated = await people.client(), {"Idempotency-Key": uuid4().hex}
    body = {"email": "somebody@example.org", "roles": ["viewer"]}
    answers = [
        await http.post(f"/v1/tenants/{one.tenant_id}/members", json=body, headers=one.headers | repeated)
        for one in (b, a)
    ]
    assert [each.status_code for each in answers] == [201, 201], answers[1].text
    assert answers[0].json()["id"] != answers[1].json()["id"]


async def test_the_same_requests_show_b_what_is_its_own(people, b):
    """The counter-check: were the sweep blind, it would not see B's words here either."""
    http = await people.client(b.key)
    for path in ("members", f"members/{b.ids['member_id']}", "invitations", "domains", "api-keys"):
        answer = await http.get(f"/v1/tenants/{b.tenant_id}/{path}")
        assert answer.status_code == 200, answer.text
        assert any(word in answer.text for word in b.words)

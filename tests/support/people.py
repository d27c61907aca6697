"""The tenant service in this process, with tenants and people that a test makes, and name servers that it plays."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from secret_watch import watched

from tenant_service.app import create_app
from tenant_service.domains.resolver import FixedResolver
from tenant_service.runs.engine import take_turns
from tenant_service.runs.work import WORK
from tenant_service.runtime import Runtime
from tenant_service.settings import TenantSettings
from tenantry import ManualClock
from tenantry.identity import SESSION_COOKIE
from tenantry.testing import ServiceDatabase

BASE_URL = "http://tenant.test"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
SECRET = "secret"
CLIENTS = {
    "operator": ["platform"],
    "second-operator": ["platform"],
    "app": ["service"],
    "mailer": ["service", "identity:deliver"],
}

_numbers = count()


@dataclass
class Person:
    """Somebody who is signed in: a browser with its cookie."""

    http: httpx.AsyncClient
    email: str
    secret: str
    answer: dict[str, Any]
    member_id: str = ""

    @property
    def tenant_id(self) -> str:
        return str(self.answer["tenant_id"])


@dataclass
class People:
    """The service over HTTP; `http` is an operator's."""

    runtime: Runtime
    http: httpx.AsyncClient
    resolver: FixedResolver
    clock: ManualClock
    stack: AsyncExitStack
    database: ServiceDatabase
    tokens: dict[str, str] = field(default_factory=dict)

    async def client(self, authorization: str | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(create_app(self.runtime))
        headers = {} if authorization is None else {"Authorization": f"Bearer {authorization}"}
        return await self.stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers=headers)
        )

    async def machine(self, client_id: str) -> httpx.AsyncClient:
        """A client of the bootstrap file, with its token for this service."""
        return await self.client(await self.client_token(client_id))

    async def client_token(self, client_id: str) -> str:
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": SECRET}
        answer = await self.http.post("/oauth/token", data={**form, "audience": "tenant"})
        assert answer.status_code == 200, answer.text
        return watched(str(answer.json()["access_token"]))

    async def tenant(self, *, active: bool = True, **wanted: Any) -> str:
        """The id of a new tenant."""
        number = next(_numbers)
        body = {
            "slug": f"people-{number}",
            "name": f"Tenant {number}",
            "tier": "standard",
            "admin_email": f"first-{number}@example.org",
        }
        answer = await self.http.post("/v1/tenants", json=body | wanted)
        assert answer.status_code == 202, answer.text
        settings = self.runtime.settings.saga()
        while active:
            async with self.runtime.transactions.begin() as session:
                if not await take_turns(session, WORK, settings, self.runtime.clock.now()):
                    break
        return str(answer.json()["id"])

    async def invite(self, tenant_id: str, *roles: str, email: str | None = None, **more: Any) -> dict[str, Any]:
        body = {"email": email or f"person-{next(_numbers)}@example.org", "roles": list(roles), **more}
        answer = await self.http.post(f"/v1/tenants/{tenant_id}/invitations", json=body)
        assert answer.status_code == 201, answer.text
        watched(answer.json().get("code") or "")
        return dict(answer.json())

    async def join(self, tenant_id: str, *roles: str, email: str | None = None) -> Person:
        """Somebody who has accepted an invitation."""
        invitation = await self.invite(tenant_id, *roles, email=email)
        person = await self.sign_in(invitation["code"], email=invitation["email"])
        person.member_id = await self.member_id(tenant_id, person.email)
        return person

    async def sign_in(self, code: str, *, email: str = "") -> Person:
        http = await self.client()
        answer = await http.post("/v1/sessions", json={"code": code})
        assert answer.status_code == 201, answer.text
        secret = watched(answer.cookies[SESSION_COOKIE])
        # The cookie is for https alone, which this client does not speak.
        http.headers["Cookie"] = f"{SESSION_COOKIE}={secret}"
        http.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
        return Person(http, email, secret, answer.json())

    async def member_id(self, tenant_id: str, email: str) -> str:
        members = (await self.http.get(f"/v1/tenants/{tenant_id}/members", params={"limit": 200})).json()["items"]
        return str(next(each["id"] for each in members if each["email"] == email))

    async def exchange(self, person: Person, tenant_id: str, **more: str) -> httpx.Response:
        form = {
            "grant_type": EXCHANGE,
            "subject_token_type": "urn:tenantry:session",
            "tenant_id": tenant_id,
            "audience": "tenant",
            **more,
        }
        return await person.http.post("/oauth/token", data=form)

    async def token(self, person: Person, tenant_id: str, **more: str) -> str:
        answer = await self.exchange(person, tenant_id, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def support(self, tenant_id: str, **more: Any) -> dict[str, Any]:
        body = {"reason": "ticket 4711", **more}
        answer = await self.http.post(f"/v1/tenants/{tenant_id}/support-access", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def exchange_support(self, grant_id: str, *, operator: str = "operator", **more: str) -> httpx.Response:
        form = {
            "grant_type": EXCHANGE,
            "subject_token_type": "urn:tenantry:support-access",
            "subject_token": grant_id,
            "actor_token": await self.client_token(operator),
            "actor_token_type": ACCESS_TOKEN,
            "audience": "tenant",
            **more,
        }
        http = await self.client()
        return await http.post("/oauth/token", data=form)

    async def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        async with self.database.connect() as connection:
            return [dict(row) for row in await connection.fetch(statement, *values)]

    async def trail(self, tenant_id: str) -> list[dict[str, Any]]:
        return await self.rows(
            "SELECT action, actor, actor_kind, credential_id, impersonator, target, detail "
            "FROM system.audit_entry WHERE chain_id = $1 ORDER BY position",
            tenant_id,
        )

    async def events(self, tenant_id: str) -> list[tuple[str, dict[str, Any]]]:
        rows = await self.rows(
            "SELECT type, payload FROM system.outbox WHERE topic = 'tenant.events.v1' AND key = $1 ORDER BY id",
            tenant_id,
        )
        return [(row["type"], json.loads(row["payload"])) for row in rows]


@asynccontextmanager
async def run_people(database: ServiceDatabase, directory: Path, **changes: Any) -> AsyncIterator[People]:
    """The service on this database, until the block ends; `changes` are settings."""
    path = directory / "bootstrap.json"
    clients = [
        {
            "client_id": name,
            "secret_sha256": hashlib.sha256(SECRET.encode()).hexdigest(),
            "scopes": scopes,
            "audiences": ["tenant", "app"],
        }
        for name, scopes in CLIENTS.items()
    ]
    path.write_text(json.dumps(clients))
    values: dict[str, Any] = {
        "base_url": BASE_URL,
        "base_domains": ("apps.example.net",),
        "master_key": base64.b64encode(bytes(range(32))).decode(),
        "bootstrap_file": path,
    }
    clock, resolver = ManualClock(datetime.now(UTC)), FixedResolver()
    async with AsyncExitStack() as stack:
        settings = TenantSettings(**(values | changes))
        runtime = await stack.enter_async_context(Runtime.start(settings, database.settings(), clock, resolver))
        transport = httpx.ASGITransport(create_app(runtime))
        http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=BASE_URL))
        people = People(runtime, http, resolver, clock, stack, database)
        http.headers["Authorization"] = f"Bearer {await people.client_token('operator')}"
        yield people


def check_problem(answer: httpx.Response, status: int, kind: str) -> None:
    """Asserts that the answer is this problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (answer.status_code, answer.json()["type"]) == (status, kind), answer.text

"""T1: every operation of the usage and the billing service, asked by tenant A about what is tenant B's.

The requests are generated, as are those of the others, in test_t01_object_access.py and tests/isolation/test_routes.py.
"""

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from billing_installation import Installation, settled
from comparable import comparable
from local_state import GivenState
from planted_rows import fingerprint, plant
from sql_statements import statements_sent

from billing_service.app import create_app as create_billing_app
from billing_service.catalogue import CATALOGUE as BILLING
from tenantry import Tenancy, TenancySettings, Tenant, uuid7
from tenantry.database import Databases, DataCatalogue
from tenantry.events import KafkaSettings, create_topics
from tenantry.http import encode_cursor
from tenantry.identity import Scope
from tenantry.testing import RouteOperation, ServiceDatabase, eventually, route_operations
from usage_service.app import create_app as create_usage_app
from usage_service.data_catalogue import CATALOGUE as USAGE
from usage_service.settings import UsageSettings

SCOPES = [Scope.TENANT_READ, Scope.TENANT_WRITE, Scope.TENANT_ADMIN]
NOW = datetime.now(UTC)
# What one side has and the other has not, by the names under which it is asked for.
OWNED = {"subscription_id", "run_id", "invoice_id", "cut_id", "letter_id", "grant_id", "erasure_id"}
SHARED = {
    "slug": "meter",
    "meter": "meter",
    "feature": "meter",
    "code": "plan",
    "from": (NOW - timedelta(days=1)).isoformat(),
    "to": NOW.isoformat(),
}


@dataclass
class Side:
    tenant: Tenant
    own_id: UUID
    word: str
    headers: dict[str, str]

    @property
    def ids(self) -> dict[str, str]:
        own = {"tenant_id": str(self.tenant.id), "token": self.word}
        return SHARED | dict.fromkeys(OWNED, str(self.own_id)) | own

    def leaks(self, answer: httpx.Response) -> list[str]:
        given = str(answer.request.url) + answer.request.content.decode("latin-1")
        words = (self.word, str(self.own_id), str(self.tenant.id))
        return [word for word in words if word in answer.text and word not in given]


@dataclass
class Stage:
    """A service with two tenants, each with a row in every table."""

    app: Any
    catalogue: DataCatalogue
    database: ServiceDatabase
    a: Side
    b: Side

    @property
    def operations(self) -> list[RouteOperation]:
        return list(route_operations(self.app.openapi()))

    async def fingerprint(self) -> dict[str, str]:
        """Of what is B's."""
        async with self.database.connect() as connection:
            return await fingerprint(connection, self.catalogue, self.b.tenant.id)

    async def send(self, request: httpx.Request) -> tuple[httpx.Response, list[str]]:
        """The answer, and the statements that it took."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as client:
            with statements_sent() as sent:
                return await client.send(request), sent


async def side(database: ServiceDatabase, catalogue: DataCatalogue, tenant: Tenant, headers: dict[str, str]) -> Side:
    async with database.connect() as connection:
        own_id, word = await plant(connection, catalogue, tenant.id)
    return Side(tenant, own_id, word, headers)


@asynccontextmanager
async def usage(database, kafka, tenant_a, tenant_b):
    await create_topics(kafka)
    state = GivenState([tenant_a, tenant_b])
    databases = Databases("usage", database.settings(), follow_placement=False)
    tenancy = Tenancy("usage", TenancySettings(issuer="http://tenant.test"), source=state, databases=databases)
    app = create_usage_app(UsageSettings(), tenancy, kafka)
    async with app.router.lifespan_context(app):
        a, b = [await side(database, USAGE, each, state.key(*SCOPES, tenant=each)) for each in (tenant_a, tenant_b)]
        yield Stage(app, USAGE, database, a, b)


@asynccontextmanager
async def billing(database, kafka, tenant_a, tenant_b):
    async with Installation.start(database, kafka.kafka_bootstrap, kafka.topic_prefix) as installation:
        await installation.publish_tenants(tenant_a, tenant_b)
        keys = [await installation.api_key(*SCOPES, tenant=each) for each in (tenant_a, tenant_b)]
        runtime = installation.runtime()
        app = create_billing_app(runtime)
        async with app.router.lifespan_context(app):
            await settled(runtime)
            await eventually(lambda: {tenant_a.id, tenant_b.id} <= {each.id for each in runtime.source.directory})
            a, b = [
                await side(database, BILLING, each, {"Authorization": f"Bearer {key}"})
                for each, key in zip((tenant_a, tenant_b), keys, strict=True)
            ]
            yield Stage(app, BILLING, database, a, b)


SERVICES = {"usage": usage, "billing": billing}


@pytest.fixture(params=SERVICES)
async def stage(request, service_database, kafka_bootstrap, kafka_prefix, tenant_a, tenant_b):
    database = service_database(request.param)
    await database.truncate()
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    async with SERVICES[request.param](database, kafka, tenant_a, tenant_b) as stage:
        yield stage


async def test_what_is_bs_is_nothing_to_a(stage):
    """Ids in paths, cursors, queries and bodies; and, as the counter-check, B's own answers, which hold B's word."""
    a, b, faults, seen = stage.a, stage.b, [], []
    nothing = b.ids | {name: str(uuid7()) for name in OWNED}
    before = await stage.fingerprint()
    assert all(before.values())
    assert len(stage.operations) >= 10
    for operation in stage.operations:
        if OWNED & set(operation.path_parameters):
            foreign, work = await stage.send(operation.request(b.ids, headers=a.headers))
            unknown, as_much = await stage.send(operation.request(nothing, headers=a.headers))
            if comparable(foreign) != comparable(unknown) or foreign.status_code not in {403, 404} or work != as_much:
                faults.append(f"{operation}: {foreign.status_code} {foreign.text}, unknown: {unknown.text}")
        named = b.ids | {"tenant_id": str(b.tenant.id), "subject": str(b.tenant.id), "tenant": str(b.tenant.id)}
        queries: list[dict[str, str]] = [{}]
        for each in operation.query:
            queries += [{each["name"]: str(b.tenant.id)}, {each["name"]: b.word}]
            if each["name"] == "cursor":
                queries += [{"cursor": encode_cursor(b.own_id, of=of)} for of in ("subscriptions", "invoices")]
        for query in queries:
            answer, _ = await stage.send(operation.request(named, query=query, headers=a.headers))
            if answer.status_code >= 500 or b.leaks(answer):
                faults.append(f"{operation} {query}: {answer.status_code} {b.leaks(answer)} {answer.text}")
            if not operation.safe and answer.is_success:
                faults.append(f"{operation}: {answer.status_code} for B's ids, {answer.text}")
        if operation.safe:
            own, _ = await stage.send(operation.request(b.ids, headers=b.headers))
            seen += [str(operation)] if b.word in own.text or str(b.own_id) in own.text else []
    assert not faults, "\n".join(faults)
    assert await stage.fingerprint() == before
    assert len(seen) >= 3, f"B's rows were to be seen, by B, in {seen} alone"

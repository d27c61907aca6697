"""T10: what tenants have written, and what opens doors, is in no log, trace, metric, dead letter or other's answer.

Over all other tests tests/support/secret_watch.py looks for the same in what is logged.
"""

import logging
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from aiokafka import ConsumerRecord
from app_product import run_product
from app_world import built_world
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text

from app_service.models import Document
from tenantry import Isolation, TenantSession, configure_logging, configure_tracing, uuid7
from tenantry._tracing import stop_tracing
from tenantry.events import KafkaSettings
from tenantry.events._batches import salvage
from tenantry.events._dead_letters import append_dead_letter

CANARY = "canaryofaperson"


@pytest.fixture
def logged(capfd):
    """What a process writes, at every level and as JSON and for people, until it is asked for."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    @contextmanager
    def configured(*, json):
        configure_logging("app", level="DEBUG", json=json)
        structlog.configure(cache_logger_on_first_use=False)  # or loggers would keep this beyond the test
        capfd.readouterr()
        yield
        structlog.get_logger().info("the end")

    logged: Any = configured
    logged.read = lambda: "".join(capfd.readouterr())
    yield logged
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in {"alembic", "httpx", "httpcore", "aiokafka", "sqlalchemy"}:
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def traced():
    """Everything that is in the spans of this process, as text."""
    exporter = InMemorySpanExporter()
    configure_tracing("app", exporter=exporter)
    yield lambda: "\n".join(span.to_json(indent=None) for span in exporter.get_finished_spans())
    stop_tracing()


@pytest.fixture(scope="module", params=list(Isolation), ids=str)
def world(request, service_database):
    return built_world(service_database("app"), request.param)


@pytest.fixture
async def product(world, tmp_path):
    async with run_product(world.database, [world.a, world.b], tmp_path) as product:
        yield product


def add_failing_routes(app):
    """What a product's own code may do wrong, with rows in its hands."""

    @app.post("/v1/documents/{document_id}/again")
    async def insert_again(document_id: str, session: TenantSession) -> None:
        await session.execute(
            text(
                "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
                " SELECT tenant_id, id, title, body, tags, version, created_at, updated_at FROM document"
            )
        )

    @app.post("/v1/documents/{document_id}/null")
    async def break_row(document_id: str, session: TenantSession) -> None:
        await session.execute(text("UPDATE document SET version = NULL"))

    @app.post("/v1/documents/{document_id}/unique")
    async def break_unique(document_id: str, session: TenantSession) -> None:
        await session.execute(text("CREATE TEMPORARY TABLE said (word text UNIQUE) ON COMMIT DROP"))
        await session.execute(text("INSERT INTO said SELECT unnest(tags) FROM document"))

    @app.post("/v1/documents/{document_id}/cast")
    async def cast_row(document_id: str, session: TenantSession) -> None:
        await session.execute(text("SELECT body::uuid FROM document"))

    @app.post("/v1/documents/{document_id}/argument")
    async def wrong_argument(document_id: str, session: TenantSession) -> None:
        document = (await session.execute(text("SELECT title FROM document"))).first()
        assert document is not None
        await session.execute(Document.__table__.select().where(Document.id == document.title))

    @app.post("/v1/documents/{document_id}/local")
    async def fail_with_a_local(document_id: str, session: TenantSession) -> None:
        rows = (await session.execute(text("SELECT * FROM document"))).all()
        row, secret = rows[0], str(rows)
        raise LookupError(len(secret) + len(row))


FAILURES = ("again", "null", "unique", "cast", "argument", "local")


@pytest.mark.parametrize("json", [True, False], ids=["json", "console"])
async def test_no_row_and_no_secret_of_the_app_comes_out(traced, product, world, logged, json):
    add_failing_routes(product.app)
    canary, client, headers = world.canary(world.a), product.client, product.headers(world.a)
    ids = world.ids(world.a)
    document = f"/v1/documents/{ids['document_id']}"
    others = []
    with logged(json=json):
        for path in (
            "/v1/documents",
            document,
            f"{document}/files",
            f"{document}/files/{ids['name']}",
            "/v1/search?q=canary",
        ):
            assert (await client.get(path, headers=headers)).status_code in {200, 404}
            others.append(await client.get(path, headers=product.headers(world.b)))
        body = {"title": f"{canary} new", "body": canary, "tags": [canary]}
        assert (await client.post("/v1/documents", json=body, headers=headers)).status_code == 201
        for wrong in ({"title": [canary]}, {"title": canary, "tags": canary}, {"title": canary * 99}, {canary: canary}):
            refused = await client.post("/v1/documents", json=wrong, headers=headers)
            assert refused.status_code == 422
            # What was sent may be a secret that stands in the wrong place: it is not repeated, but for its name.
            assert canary not in refused.text or canary in wrong
        put = await client.put(f"{document}/files/{canary}-3.txt", content=canary.encode(), headers=headers)
        assert put.status_code in {200, 201}, put.text
        assert (await client.get(f"{document}/files/{canary}-9.txt", headers=headers)).status_code == 404
        # Somebody else's token with the tenant's name on it: noted for whoever watches over the system.
        mismatch = headers | {"X-Tenant-ID": str(world.b.id)}
        assert (await client.get(f"{document}/files/{canary}-1.txt", headers=mismatch)).status_code in {400, 403, 404}
        assert (
            await client.get(f"/{canary}", headers={"Authorization": f"Bearer {CANARY}.{CANARY}"})
        ).status_code == 401
        for failure in FAILURES:
            answer = await client.post(f"{document}/{failure}", headers=headers)
            assert answer.status_code >= 400, failure
            assert canary not in answer.text, failure
            assert "Key (" not in answer.text
        metrics = (await client.get("/metrics")).text
    said, traces = logged.read(), traced()
    assert said.count("Traceback") >= len(FAILURES) - 2, "the failures are logged, or nothing is tested"
    assert traces.count("tenant session") > len(FAILURES), "the sessions are traced, or nothing is tested"
    for word in (canary, CANARY, headers["Authorization"].removeprefix("Bearer ")):
        assert not [line for line in said.splitlines() if word in line]
        assert word not in metrics
        assert word not in traces
    for answer in others:
        assert not world.leaks(answer, of=world.a, asked=answer.request)


async def test_nothing_that_people_give_the_tenant_service_comes_out(traced, people, logged):
    email = f"{CANARY}@example.org"
    with logged(json=True):
        tenant = await people.tenant(name=f"Name {CANARY}", admin_email=email, metadata={"note": CANARY})
        view = (await people.http.get(f"/v1/tenants/{tenant}")).json()
        body = {"slug": view["slug"], "name": CANARY, "tier": "standard", "admin_email": email}
        assert (await people.http.post("/v1/tenants", json=body)).status_code == 409
        assert (await people.http.post("/v1/tenants", json=body | {"tier": CANARY})).status_code >= 400
        assert (await people.http.post("/v1/tenants", json={"name": CANARY})).status_code == 422
        person = await people.join(tenant, "owner", email=f"second-{email}")
        token = await people.token(person, tenant)
        key = await people.http.post(f"/v1/tenants/{tenant}/api-keys", json={"name": CANARY, "scopes": ["tenant:read"]})
        assert key.status_code == 201, key.text
        http = await people.client(key.json()["key"])
        assert (await http.get(f"/v1/tenants/{tenant}")).status_code == 200
        assert (await http.get(f"/v1/tenants/{uuid7()}")).status_code == 404
        wrong = await people.client(f"{key.json()['key']}{CANARY}")
        assert (await wrong.get(f"/v1/tenants/{tenant}")).status_code == 401
        invitation = await people.invite(tenant, "viewer", email=f"third-{email}")
        assert (
            await people.http.post("/v1/sessions", json={"code": f"{CANARY}{invitation['code']}"})
        ).status_code >= 400
        note = {"reason": "abuse", "note": CANARY}
        assert (await people.http.post(f"/v1/tenants/{tenant}/suspend", json=note)).status_code < 300
        refused = await http.get(f"/v1/tenants/{tenant}")
        metrics = (await people.http.get("/metrics")).text
    said = logged.read()
    assert "the end" in said
    client_token = await people.client_token("operator")
    for secret in (CANARY, person.secret, token, key.json()["key"], invitation["code"], client_token):
        assert not [line for line in said.splitlines() if secret in line]
        assert secret not in metrics
        assert secret not in traced()
    assert CANARY not in refused.text


async def test_a_dead_letter_says_why_without_quoting_a_row(world, logged):
    """The record itself is in it, as it was; the reason goes to people and tools beside it."""
    record = ConsumerRecord("t.v1", 0, 7, 0, 0, b"k", b"{}", None, 1, 2, ())

    async def handle(connection, _records):
        await connection.execute(text("CREATE TEMPORARY TABLE IF NOT EXISTS said (word text UNIQUE) ON COMMIT DROP"))
        await connection.execute(text("INSERT INTO said VALUES (:word), (:word)"), {"word": CANARY})

    with logged(json=True):
        async with world.databases() as databases, databases.system.begin() as connection:
            (invalid,) = await salvage(connection, handle, [record])
            assert CANARY in invalid.reason
            await append_dead_letter(connection, KafkaSettings(kafka_bootstrap="-"), "group", invalid)
            letter = (
                await connection.execute(text("SELECT payload FROM system.outbox WHERE type = 'record.invalid.v1'"))
            ).scalar_one()
            await connection.rollback()
    assert CANARY.encode() not in letter
    assert b"UniqueViolation" in letter
    assert CANARY not in logged.read()

"""A service as its builder writes it: one `Tenancy`, sessions by annotation, idempotent writes, on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from local_state import GivenState
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import (
    CurrentTenant,
    NotFound,
    StartupRefused,
    Tenancy,
    TenancySettings,
    TenantReadSession,
    TenantSession,
)
from tenantry.database import Databases
from tenantry.http import IdempotentRoute, delete_expired_idempotency_keys, idempotent

ADD = text(
    "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
    " VALUES (:tenant, gen_random_uuid(), :title, '', '{}', 1, now(), now())"
)


router = APIRouter(route_class=IdempotentRoute)


@router.post("/documents", status_code=201, dependencies=[Depends(idempotent(TenantSession))])
async def add_document(
    document: dict[str, str], session: TenantSession, tenant: CurrentTenant, response: Response
) -> dict[str, int]:
    await session.execute(ADD, {"tenant": tenant.id, "title": document["title"]})
    if document["title"] == "refused":
        raise NotFound
    count = await session.scalar(text("SELECT count(*) FROM document"))
    response.headers["Location"] = f"/documents/{count}"
    return {"count": count or 0}


@router.post("/keys", dependencies=[Depends(idempotent(TenantSession, secret=True))])
async def add_key() -> dict[str, str]:
    return {"secret": "shown once"}


@router.post("/late", dependencies=[Depends(idempotent(TenantSession))])
async def fail_at_commit(session: TenantSession, tenant: CurrentTenant) -> str:
    await session.execute(text("CREATE TEMP TABLE late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"))
    await session.execute(text("INSERT INTO late VALUES (1), (1)"))
    return "done"


async def _system_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.tenancy.databases.system_session() as session:
        yield session


SystemTransaction = Annotated[AsyncSession, Depends(_system_session, scope="function")]
notes = iter(range(1, 100))


@router.post("/notes", dependencies=[Depends(idempotent(SystemTransaction))])
async def add_note() -> int:
    return next(notes)


@router.post("/answers/{status}", dependencies=[Depends(idempotent(TenantSession))])
async def answer(status: int, body: dict[str, int]) -> Response:
    return Response(str(body["n"]), status)


@router.get("/documents")
async def count_documents(session: TenantReadSession) -> int:
    return await session.scalar(text("SELECT count(*) FROM document")) or 0


@router.post("/read-only")
async def write_while_reading(session: TenantReadSession, tenant: CurrentTenant) -> None:
    await session.execute(ADD, {"tenant": tenant.id, "title": "x"})


@pytest.fixture
async def database(service_database):
    database = service_database("app")
    yield database
    await database.truncate()


@pytest.fixture
def source(tenant_a, tenant_b):
    return GivenState([tenant_a, tenant_b])


@asynccontextmanager
async def running(database, source) -> AsyncIterator[httpx.AsyncClient]:
    tenancy = Tenancy(
        "app",
        TenancySettings(issuer="https://tenant.example.com"),
        source=source,
        databases=Databases("app", database.settings()),
    )
    app = FastAPI(lifespan=tenancy.lifespan)
    tenancy.install(app)
    app.include_router(router, prefix="/v1")
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app/v1") as client:
            yield client


async def test_sessions_are_the_tenants_and_commit_before_the_response(database, source, tenant_a, tenant_b):
    a, b = source.key("tenant:write", tenant=tenant_a), source.key("tenant:write", tenant=tenant_b)
    async with running(database, source) as client:
        assert (await client.post("/documents", json={"title": "one"}, headers=a)).json() == {"count": 1}
        assert (await client.post("/documents", json={"title": "refused"}, headers=a)).status_code == 404
        assert (await client.get("/documents", headers=a)).json() == 1
        assert (await client.get("/documents", headers=b)).json() == 0
        assert (await client.post("/late", headers=a)).status_code == 500
        assert (await client.post("/read-only", headers=a)).status_code == 500
        assert (await client.get("/documents", headers=a)).json() == 1
        assert (await client.get("http://app/readyz")).json() == {"status": "ready", "checks": ["directory"]}


async def test_the_same_request_again_gets_the_first_answer(database, source, tenant_a):
    key = source.key("tenant:write", tenant=tenant_a)
    once = key | {"Idempotency-Key": "k-1"}
    async with running(database, source) as client:
        first = await client.post("/documents", json={"title": "one"}, headers=once)
        again = await client.post("/documents", json={"title": "one"}, headers=once)
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json() == {"count": 1}
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["content-type"] == "application/json"
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers
        assert (await client.get("/documents", headers=key)).json() == 1


async def test_the_same_key_for_another_request_is_a_conflict(database, source, tenant_a):
    once = source.key("tenant:write", tenant=tenant_a) | {"Idempotency-Key": "k-1"}
    async with running(database, source) as client:
        await client.post("/documents", json={"title": "one"}, headers=once)
        for path, title in (("/documents", "two"), ("/documents?x=1", "one")):
            response = await client.post(path, json={"title": title}, headers=once)
            assert (response.status_code, response.json()["type"]) == (409, "idempotency-conflict")


async def test_a_key_belongs_to_its_credential_and_route(database, source, tenant_a, tenant_b):
    async with running(database, source) as client:
        for tenant, expected in ((tenant_a, 1), (tenant_a, 2), (tenant_b, 1)):
            headers = source.key("tenant:write", tenant=tenant) | {"Idempotency-Key": "k-1"}
            assert (await client.post("/documents", json={"title": "x"}, headers=headers)).json()["count"] == expected
            assert (await client.post("/keys", headers=headers)).status_code == 200


async def test_a_key_of_one_subject_is_another_in_each_of_its_tenants(database, source, tenant_a, tenant_b):
    operator = source.key("platform") | {"Idempotency-Key": "k-1"}
    async with running(database, source) as client:
        for tenant in (tenant_a, tenant_b):
            headers = operator | {"X-Tenant-ID": str(tenant.id)}
            response = await client.post("/documents", json={"title": "x"}, headers=headers)
            assert (response.status_code, response.json()) == (201, {"count": 1})


async def test_a_request_that_failed_may_be_tried_again_with_its_key(database, source, tenant_a):
    once = source.key("tenant:write", tenant=tenant_a) | {"Idempotency-Key": "k-1"}
    async with running(database, source) as client:
        assert (await client.post("/documents", json={"title": "refused"}, headers=once)).status_code == 404
        assert (await client.post("/documents", json={"title": "good"}, headers=once)).json() == {"count": 1}
        assert (await client.post("/late", headers=once)).status_code == 500
        assert (await client.post("/late", headers=once)).status_code == 500  # its claim was not committed either


async def test_no_answer_that_is_an_error_is_kept(database, source, tenant_a):
    once = source.key("tenant:write", tenant=tenant_a) | {"Idempotency-Key": "k-1"}
    async with running(database, source) as client:
        assert (await client.post("/documents", json={"title": 5}, headers=once)).status_code == 422
        broken = once | {"Content-Type": "application/json"}
        assert (await client.post("/documents", content=b"{", headers=broken)).status_code == 400
        assert (await client.post("/documents", json={"title": "good"}, headers=once)).json() == {"count": 1}
        for status in (503, 422):
            for n in (1, 2):
                response = await client.post(f"/answers/{status}", json={"n": n}, headers=once)
                assert (response.status_code, response.text) == (status, str(n))
        for _ in range(2):
            assert (await client.post("/answers/200", json={"n": 3}, headers=once)).text == "3"


async def test_a_secret_is_never_replayed(database, source, tenant_a):
    once = source.key("tenant:write", tenant=tenant_a) | {"Idempotency-Key": "k-1"}
    async with running(database, source) as client:
        assert (await client.post("/keys", headers=once)).json() == {"secret": "shown once"}
        response = await client.post("/keys", headers=once)
        assert (response.status_code, response.json()["type"]) == (409, "secret-already-shown")
    async with database.connect() as connection:
        assert await connection.fetchval("SELECT response FROM system.idempotency_key") is None


async def test_stored_answers_are_seen_by_their_tenant_alone(database, source, tenant_a, tenant_b):
    stored = text("SELECT tenant_id FROM system.idempotency_key ORDER BY tenant_id")
    operator = source.key("platform")
    async with running(database, source) as client:
        for tenant in (tenant_a, tenant_b):
            headers = source.key("tenant:write", tenant=tenant) | {"Idempotency-Key": "k-1"}
            assert (await client.post("/documents", json={"title": "x"}, headers=headers)).status_code == 201
        assert (await client.post("/notes", headers=operator | {"Idempotency-Key": "k-1"})).status_code == 200
        assert (await client.post("/notes", headers=operator | {"Idempotency-Key": "k-1"})).json() == 1
    async with database.connect("service") as unbound:
        assert await unbound.fetch(stored.text) == []
    async with database.databases() as databases:
        for tenant in (tenant_a, tenant_b):
            async with databases.tenant_session(tenant) as session:
                assert (await session.scalars(stored)).all() == [tenant.id]
        async with databases.system_session() as session:
            everybodys = [UUID(int=0), *sorted([tenant_a.id, tenant_b.id])]
            assert (await session.scalars(stored)).all() == everybodys


async def test_of_many_at_once_one_works_and_all_get_its_answer(database, source, tenant_a):
    once = source.key("tenant:write", tenant=tenant_a) | {"Idempotency-Key": "k-1"}
    async with running(database, source) as client:
        sent = [client.post("/documents", json={"title": "one"}, headers=once) for _ in range(8)]
        answers = await asyncio.gather(*sent)
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, '{"count":1}')}
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 7


async def test_keys_end_after_a_day(database, source, tenant_a):
    once = source.key("tenant:write", tenant=tenant_a) | {"Idempotency-Key": "k-1"}
    age = "UPDATE system.idempotency_key SET created_at = created_at - interval '25 hours'"
    async with running(database, source) as client, database.connect() as connection:
        await client.post("/documents", json={"title": "one"}, headers=once)
        await connection.execute(age)
        assert (await client.post("/documents", json={"title": "two"}, headers=once)).json() == {"count": 2}
        await connection.execute(age)
        async with database.databases() as databases, databases.system_session() as session:
            assert await delete_expired_idempotency_keys(session) == 1
            assert await delete_expired_idempotency_keys(session) == 0


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é".encode()])
async def test_a_strange_key_is_refused(database, source, tenant_a, key):
    headers = source.key("tenant:write", tenant=tenant_a) | {"Idempotency-Key": key}
    async with running(database, source) as client:
        assert (await client.post("/documents", json={"title": "x"}, headers=headers)).status_code == 400


async def test_a_role_that_could_bypass_row_level_security_does_not_start(database, source, postgres_url):
    tenancy = Tenancy(
        "app",
        TenancySettings(issuer="https://tenant.example.com"),
        source=source,
        databases=Databases("app", database.settings(database_url=database.urls.migrator)),
    )
    with pytest.raises(StartupRefused):
        async with tenancy.run():
            pytest.fail("started")

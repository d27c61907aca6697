"""A tenant's end through all services: its rows are counted, exported, deleted and certified, wherever they lie."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tenantry_dev.run.system import System
from tenantry_dev.sample.api import Apis

DOCUMENTS = 3


async def until(ask: Callable[[], Awaitable[Any]], *, within: float = 60.0) -> Any:
    deadline = time.monotonic() + within
    while not (answer := await ask()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    return answer


async def databases_of(system: System, tenant_id: str) -> list[str]:
    connection = await asyncpg.connect(system.postgres)
    try:
        names = await connection.fetch("SELECT datname FROM pg_database")
    finally:
        await connection.close()
    return [row["datname"] for row in names if tenant_id.replace("-", "") in row["datname"]]


@pytest.mark.parametrize("isolation", ["pool", "schema", "database"])
async def test_a_tenant_ends_in_every_service(system: System, operator: Apis, isolation: str) -> None:
    wanted = {
        "slug": f"end-{isolation}-{uuid4().hex[:8]}",
        "name": "Ends",
        "tier": "standard",
        "isolation": isolation,
        "admin_email": "owner@example.org",
    }
    tenants = operator.tenant
    path = f"/v1/tenants/{(await tenants.post('/v1/tenants', wanted))['id']}"

    async def is_in(status: str) -> bool:
        return bool((await tenants.get(path))["status"] == status)

    await until(lambda: is_in("active"))
    key = (await tenants.post(f"{path}/api-keys", {"name": "k", "scopes": ["tenant:admin"]}))["key"]
    async with httpx.AsyncClient(
        base_url=system.addresses.url("app"), headers={"Authorization": f"Bearer {key}"}
    ) as product:

        async def write() -> bool:
            return (await product.post("/v1/documents", json={"title": "t", "body": "b"})).status_code == 201

        for _ in range(DOCUMENTS):
            await until(write)  # the key is on its way to the service
        assert bool(await databases_of(system, path[12:])) is (isolation == "database")
        await tenants.post(f"{path}/offboard", {"grace_days": 0})
        await until(lambda: is_in("purged"), within=90)
        assert (await product.get("/v1/documents")).status_code in {401, 404}

    certified = (await tenants.get(f"{path}/purge-certificate"))["certificate"]
    services = certified["services"]
    assert services.keys() == {"tenant", "usage", "billing", "app"}
    erased = {
        name: [table for table in service["tables"] if table["retention"] == "erase"]
        for name, service in services.items()
    }
    documents = [table for table in erased["app"] if table["table"].endswith(".document")]
    assert sum(table["rows_before"] for table in documents) == DOCUMENTS
    assert {table["rows_after"] for tables in erased.values() for table in tables} == {0}
    exported = (await tenants.get(f"{path}/exports"))["items"][0]
    written = [file["rows"] for file in exported["files"] if file["table"].endswith(".document")]
    assert sum(written) == DOCUMENTS
    assert await databases_of(system, path[12:]) == []
    assert (await tenants.get(f"{path}/audit/verify"))["ok"] is True

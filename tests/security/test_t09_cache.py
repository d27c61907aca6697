"""T09: what is remembered for one tenant reaches no other, and ends with the tenant's right to it.

Cached values, verified credentials, that something is not there, and what caches between us and the caller may keep.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from fastapi import FastAPI, Response
from issuer import ISSUER, Issuer
from local_state import GivenState
from redis.asyncio import Redis

from tenantry import CurrentTenant, NotFound, Tenancy, TenancySettings, TenantStatus
from tenantry.http import service_app
from tenantry.identity import secret_hash


class Answer(msgspec.Struct):
    tenant: str
    key: str


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def redis_of_its_own(redis_url):
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
    return redis_url


@pytest.fixture(params=["memory", "redis"])
def cache_settings(request) -> dict[str, Any]:
    return {} if request.param == "memory" else {"redis_url": request.getfixturevalue("redis_of_its_own")}


class World:
    """A service whose every kind of cached call answers with whose it is, under the same key texts for everybody."""

    def __init__(self, tenancy: Tenancy, source: GivenState, issuer: Issuer) -> None:
        self.tenancy, self.source, self.issuer = tenancy, source, issuer
        self.loads: list[str] = []
        self.app = self._build()

    def _build(self) -> FastAPI:
        app = service_app(title="Cached", service="cached")
        cache, loads = self.tenancy.cache, self.loads
        minute = timedelta(minutes=1)
        plain = cache.namespace("plain", Answer, ttl=minute)
        rights = cache.namespace("rights", Answer, ttl=minute, versioned=True)

        @cache.cached("decorated", minute)
        async def decorated(key: str, tenant: str) -> Answer:
            loads.append("decorated")
            return Answer(tenant, key)

        @app.get("/decorated/{key}")
        async def get_decorated(key: str, tenant: CurrentTenant) -> dict[str, str]:
            # The tenant's slug is in no key: the cache itself must tell them apart.
            return msgspec.to_builtins(await by_key(key, tenant.slug))

        by_key = cache.cached("by-key", minute, key=lambda key, tenant: key)(decorated._function)

        @app.get("/plain")
        @app.get("/plain/{key}")
        async def get_plain(key: str, tenant: CurrentTenant) -> dict[str, str]:
            async def load() -> Answer:
                loads.append("plain")
                return Answer(tenant.slug, key)

            return msgspec.to_builtins(await plain.get_or_load(key, load))

        @app.get("/rights/{key}")
        async def get_rights(key: str, tenant: CurrentTenant) -> dict[str, str]:
            async def load() -> Answer:
                loads.append("rights")
                return Answer(f"{tenant.slug} {tenant.tier}", key)

            return msgspec.to_builtins(await rights.get_or_load(key, load))

        @app.get("/absent/{key}")
        async def get_absent(key: str, tenant: CurrentTenant) -> dict[str, str]:
            async def load() -> Answer | None:
                loads.append("absent")
                return None if tenant.slug == "tenant-a" else Answer(tenant.slug, key)

            found = await plain.get_or_load(f"absent {key}", load)
            if found is None:
                raise NotFound
            return msgspec.to_builtins(found)

        @app.get("/listed")
        async def get_listed(response: Response) -> str:
            response.headers["Cache-Control"] = "private, max-age=60"
            return "listed"

        self.tenancy.install(app, public=["/open"])

        @app.get("/open")
        async def get_open() -> str:
            return "open"

        return app


@pytest.fixture
async def world(cache_settings, tenant_a, tenant_b, tmp_path) -> AsyncIterator[World]:
    issuer = Issuer()
    source = GivenState([tenant_a, tenant_b], issuer.jwks)
    tenancy = Tenancy("cached", TenancySettings(issuer=ISSUER, state_dir=tmp_path, **cache_settings), source=source)
    async with tenancy.run():
        yield World(tenancy, source, issuer)


@pytest.fixture
async def client(world):
    async with AsyncExitStack() as stack:
        transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
        yield await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://cached.test"))


def bearer(world, tenant):
    token = world.issuer.token(tenant_id=tenant.id, scope="tenant:write", audience="cached")
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("route", ["decorated", "plain", "rights"])
async def test_primed_as_a_and_read_as_b(world, client, tenant_a, tenant_b, route):
    for _ in range(2):
        of_a = (await client.get(f"/{route}/same", headers=bearer(world, tenant_a))).json()
        assert of_a["tenant"].startswith("tenant-a")
    loads = len(world.loads)
    assert loads == 1
    of_b = (await client.get(f"/{route}/same", headers=bearer(world, tenant_b))).json()
    assert of_b["tenant"].startswith("tenant-b")
    assert len(world.loads) == 2


@pytest.mark.parametrize("key", ["x:y", "#1", "{x}", "..", "a" * 500, "é", "t:0:epoch"])
async def test_no_text_of_a_key_reaches_another_tenants_value(world, client, tenant_a, tenant_b, key):
    for tenant in (tenant_a, tenant_b, tenant_a):
        answer = await client.get("/plain", params={"key": key}, headers=bearer(world, tenant))
        assert answer.json() == {"tenant": tenant.slug, "key": key}
    assert len(world.loads) == 2


async def test_that_a_has_none_says_nothing_of_b(world, client, tenant_a, tenant_b):
    for _ in range(2):
        assert (await client.get("/absent/1", headers=bearer(world, tenant_a))).status_code == 404
    assert world.loads == ["absent"]
    assert (await client.get("/absent/1", headers=bearer(world, tenant_b))).json()["tenant"] == "tenant-b"


async def test_a_hundred_at_once_of_both_are_not_mixed(world, client, tenant_a, tenant_b):
    tenants = [tenant_a, tenant_b] * 50
    answers = await asyncio.gather(*(client.get("/plain/1", headers=bearer(world, tenant)) for tenant in tenants))
    assert [answer.json()["tenant"] for answer in answers] == [tenant.slug for tenant in tenants]
    assert world.loads == ["plain"] * 2


async def test_a_verified_token_of_a_is_never_one_of_b(world, client, tenant_a, tenant_b):
    """The key of what was verified is the credential, and its tenant is what it says: a selector changes nothing."""
    token = bearer(world, tenant_a)
    assert (await client.get("/plain/1", headers=token)).json()["tenant"] == "tenant-a"
    for _ in range(2):
        answer = await client.get("/plain/1", headers={**token, "X-Tenant-ID": str(tenant_b.id)})
        assert (answer.status_code, answer.json()["type"]) == (403, "tenant-mismatch")
    assert (await client.get("/plain/1", headers=token)).json()["tenant"] == "tenant-a"


@pytest.mark.parametrize("credential", ["token", "key"])
async def test_a_suspended_tenants_cached_credential_and_values_stop_at_once(
    world, client, tenant_a, tenant_b, credential
):
    headers = {
        "token": lambda: bearer(world, tenant_a),
        "key": lambda: world.source.key("tenant:write", tenant=tenant_a),
    }[credential]()
    for _ in range(3):
        assert (await client.get("/plain/1", headers=headers)).status_code == 200
    suspended = msgspec.structs.replace(
        tenant_a, status=TenantStatus.SUSPENDED, suspension_reasons=("abuse",), version=2
    )
    world.source.directory.upsert(suspended)
    # The bound is that of the directory: with the record that says so, the next request is refused.
    refused = await client.get("/plain/1", headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (403, "tenant-suspended")
    assert "tenant-a" not in refused.text
    assert (await client.get("/plain/1", headers=bearer(world, tenant_b))).status_code == 200


async def test_a_revoked_key_that_was_just_used_stops_at_once(world, client, tenant_a):
    headers = world.source.key("tenant:write", tenant=tenant_a)
    assert (await client.get("/plain/1", headers=headers)).status_code == 200
    world.source.credentials.remove(secret_hash(headers["Authorization"].removeprefix("Bearer ")))
    assert (await client.get("/plain/1", headers=headers)).status_code == 401


async def test_rights_end_with_the_version_that_they_were_worked_out_from(world, client, tenant_a):
    headers = bearer(world, tenant_a)
    assert (await client.get("/rights/1", headers=headers)).json()["tenant"] == "tenant-a standard"
    world.source.directory.upsert(msgspec.structs.replace(tenant_a, tier="smaller", version=2))
    assert (await client.get("/rights/1", headers=headers)).json()["tenant"] == "tenant-a smaller"


async def test_answers_to_a_known_caller_are_kept_by_no_cache_between(world, client, tenant_a):
    headers = bearer(world, tenant_a)
    for path in ("/plain/1", "/nothing", "/absent/1"):
        answer = await client.get(path, headers=headers)
        assert answer.headers["Cache-Control"] == "private, no-store"
    # A route that lets its answer be kept says nothing of the caller; the middleware does.
    listed = await client.get("/listed", headers=headers)
    assert listed.headers["Cache-Control"] == "private, max-age=60"
    assert {name.strip() for name in listed.headers["Vary"].split(",")} == {"Authorization", "Cookie", "X-Tenant-ID"}
    assert "Cache-Control" not in (await client.get("/open")).headers

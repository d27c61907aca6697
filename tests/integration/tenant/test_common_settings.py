"""What all services have in common holds in the tenant service too: hosts, staleness, limits of tenants."""

import asyncpg
import pytest

from tenantry.testing import eventually


def check_problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind, answer.text


async def active(api, **wanted):
    tenant = await api.create(**wanted)
    await api.activate(tenant["id"])
    await eventually(lambda: api.runtime.state.directory.resolve(tenant["id"]).status == "active")
    return tenant


async def key_of(api, tenant, *scopes):
    made = await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json={"name": "k", "scopes": list(scopes)})
    return {"Authorization": f"Bearer {made.json()['key']}"}


async def test_other_host_names_are_unknown(start_api, monkeypatch):
    monkeypatch.setenv("TENANTRY_HOSTS", "tenant.test")
    api = await start_api()
    await api.sign_in()
    assert (await api.http.get("/v1/tenants")).status_code == 200
    assert (await api.http.get("/v1/tenants", headers={"Host": "elsewhere.test"})).status_code == 404
    assert (await api.http.get("/.well-known/jwks.json", headers={"Host": "elsewhere.test"})).status_code == 404
    assert (await api.http.get("/healthz", headers={"Host": "10.0.0.7"})).status_code == 200


async def test_a_process_that_hears_of_no_changes_refuses_writes_of_weight(start_api, database, monkeypatch):
    monkeypatch.setenv("TENANTRY_MAX_STALENESS_SECONDS", "0.05")
    api = await start_api()
    await api.sign_in()
    tenant = await active(api)
    reader = await key_of(api, tenant, "tenant:read")
    assert api.runtime.state.lag_seconds == 0
    connect, away = asyncpg.connect, True

    async def reach(*arguments, **options):
        if away:
            raise OSError("nobody is there")
        return await connect(*arguments, **options)

    async with database.connect() as admin:
        monkeypatch.setattr(asyncpg, "connect", reach)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
    # The listener asks its server every ten seconds, and finds out then.
    await eventually(lambda: api.runtime.state.lag_seconds > 0.05, within=60)
    check_problem(
        await api.http.post(f"/v1/tenants/{tenant['id']}/suspend", json={"reason": "abuse"}), 503, "state-stale"
    )
    assert (await api.http.get("/v1/tenants")).status_code == 200
    assert (await api.http.get(f"/v1/tenants/{tenant['id']}", headers=reader)).status_code == 200
    away = False
    await eventually(lambda: api.runtime.state.lag_seconds == 0, within=60)
    suspended = await api.http.post(f"/v1/tenants/{tenant['id']}/suspend", json={"reason": "abuse"})
    assert suspended.status_code == 200, suspended.text


@pytest.mark.parametrize("how", ["tier", "tenant"])
async def test_a_tenants_own_credentials_have_its_limits_and_operators_none(api, how):
    limits = {"requests": {"default": {"rate": 0.01, "burst": 3}}}
    await api.http.put(f"/v1/tiers/own-{how}", json={"limits": limits if how == "tier" else {}})
    tenant = await active(api, tier=f"own-{how}")
    if how == "tenant":
        await api.http.put(f"/v1/tenants/{tenant['id']}/config/limits", json=limits)
    own = await key_of(api, tenant, "tenant:read")
    path = f"/v1/tenants/{tenant['id']}"
    answers = [await api.http.get(path, headers=own) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"].startswith('"default";q=3')
    assert {(await api.http.get(path)).status_code for _ in range(5)} == {200}

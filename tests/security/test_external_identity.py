"""A service whose people come from the company's own identity provider: no token, client or URL of ours is needed."""

import httpx
import pytest
from fastapi import FastAPI
from issuer import Issuer, serve_identity_provider
from local_state import GivenState
from pydantic import ValidationError
from security_tenants import A, B, make_tenant

from tenantry import CurrentPrincipal, CurrentTenant, StartupRefused, Tenancy, TenancySettings, TenantStatus
from tenantry.identity import Principal, PrincipalKind
from tenantry.testing import eventually


@pytest.fixture
def provider():
    with serve_identity_provider("ES256") as provider:
        yield provider


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("TENANTRY_ISSUER", "TENANTRY_CLIENT_ID", "TENANTRY_CLIENT_SECRET", "TENANTRY_TENANT_URL"):
        monkeypatch.delenv(name, raising=False)


def application(state, **options):
    tenancy = Tenancy("app", TenancySettings(), source=state, **options)
    app = FastAPI(lifespan=tenancy.lifespan)
    tenancy.install(app)

    @app.api_route("/v1/things", methods=["GET", "POST"])
    async def things(tenant: CurrentTenant, principal: CurrentPrincipal) -> dict[str, str]:
        return {"tenant": tenant.slug, "subject": principal.subject}

    return app, tenancy


def client_of(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test")


async def test_people_come_from_the_companys_provider_and_need_nothing_of_ours(provider, monkeypatch):
    monkeypatch.setenv("TENANTRY_IDENTITY", "external")
    monkeypatch.setenv(
        "TENANTRY_TRUSTED_ISSUERS",
        f'[{{"name": "idp", "issuer": "{provider.url}", "audiences": ["my-api"], "tenant": {{"claim": "org_id"}}}}]',
    )
    ours = Issuer()
    app, tenancy = application(GivenState([make_tenant(A), make_tenant(B)], ours.jwks))
    async with tenancy.run(), client_of(app) as client:
        await eventually(lambda: ready(client))
        good = {"Authorization": f"Bearer {provider.token()}"}
        assert (await client.get("/v1/things", headers=good)).json() == {"tenant": "tenant-a", "subject": "idp:user-1"}
        assert (await client.get("/v1/things", headers=good | {"X-Tenant-ID": str(B)})).status_code == 403
        tenancy.directory.upsert(make_tenant(A, version=2, status=TenantStatus.SUSPENDED))
        assert (await client.get("/v1/things", headers=good)).status_code == 403
        own = {"Authorization": f"Bearer {ours.token(tenant_id=A)}"}
        assert (await client.get("/v1/things", headers=own)).status_code == 401
        with pytest.raises(StartupRefused):
            tenancy.tokens.bearer("usage")


async def ready(client):
    return (await client.get("/readyz")).status_code == 200


async def test_both_kinds_of_tokens_are_accepted_side_by_side(provider, monkeypatch):
    ours = Issuer()
    monkeypatch.setenv("TENANTRY_ISSUER", ours.issuer)
    monkeypatch.setenv(
        "TENANTRY_TRUSTED_ISSUERS",
        f'[{{"name": "idp", "issuer": "{provider.url}", "audiences": ["my-api"], "bound_to": "org-b"}}]',
    )
    app, tenancy = application(GivenState([make_tenant(A), make_tenant(B)], ours.jwks))
    async with tenancy.run(), client_of(app) as client:
        assert await ready(client)  # the issuer of one tenant holds nobody else up
        await eventually(lambda: tenancy._issuer_keys.of(next(iter(tenancy._issuers))).ready)
        for token, slug in ((ours.token(tenant_id=A), "tenant-a"), (provider.token(org_id="org-a"), "tenant-b")):
            response = await client.get("/v1/things", headers={"Authorization": f"Bearer {token}"})
            assert response.json()["tenant"] == slug


async def test_a_companys_own_sessions_alone_are_enough(monkeypatch):
    monkeypatch.setenv("TENANTRY_IDENTITY", "external")

    async def from_company(request):
        user = request.headers.get("x-company-user")
        return user and Principal(subject=user, kind=PrincipalKind.USER, tenant_id=A, credential_id="company")

    app, tenancy = application(GivenState([make_tenant(A)]), identify=[from_company])
    async with tenancy.run(), client_of(app) as client:
        assert (await client.get("/v1/things", headers={"X-Company-User": "u"})).json()["subject"] == "u"
        assert (await client.get("/v1/things")).status_code == 401


def test_a_service_of_ours_needs_its_issuer(monkeypatch):
    with pytest.raises(ValidationError, match="TENANTRY_ISSUER"):
        TenancySettings()
    for name, value in (
        ("TENANTRY_TRUSTED_ISSUERS", '[{"name": "x"}]'),
        ("TENANTRY_TRUSTED_PROXIES", "nonsense"),
        ("TENANTRY_SELECT", "guess"),
        ("TENANTRY_IDENTIFY", "guess"),
    ):
        monkeypatch.setenv("TENANTRY_ISSUER", "https://tenant.test")
        monkeypatch.setenv(name, value)
        with pytest.raises(ValidationError):
            TenancySettings()
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("mode", "scope", "read", "write"),
    [
        ("privileged", "tenant:write", 200, 200),
        ("privileged", "tenant:admin", 200, 503),
        ("all", "tenant:write", 200, 503),
        ("none", "tenant:admin", 200, 200),
    ],
)
async def test_a_state_that_is_too_old_serves_reads_and_refuses_what_the_setting_says(
    monkeypatch, mode, scope, read, write
):
    ours = Issuer()
    monkeypatch.setenv("TENANTRY_ISSUER", ours.issuer)
    monkeypatch.setenv("TENANTRY_STALE_WRITES", mode)
    monkeypatch.setenv("TENANTRY_MAX_STALENESS_SECONDS", "30")
    state = GivenState([make_tenant(A)], ours.jwks)
    app, tenancy = application(state)
    headers = {"Authorization": f"Bearer {ours.token(tenant_id=A, scope=scope)}"}
    async with tenancy.run(), client_of(app) as client:
        for age, expected in ((30.0, (200, 200)), (30.1, (read, write))):
            state.lag_seconds = age
            answers = [await client.request(method, "/v1/things", headers=headers) for method in ("GET", "POST")]
            assert tuple(answer.status_code for answer in answers) == expected
            assert f'tenantry_directory_staleness_seconds{{service="app"}} {age}' in (await client.get("/metrics")).text
        if write == 503:
            assert answers[1].json()["type"] == "state-stale"
            assert answers[1].headers["retry-after"]

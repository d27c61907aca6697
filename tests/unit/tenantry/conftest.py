"""An issuer, two tenants and an application in process: everything that a request meets, without any IO."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey

from tenantry import CurrentTenant, LocalDirectory, ManualClock, Tenant, TenantId, TenantStatus
from tenantry.http import CurrentPrincipal, TenancyMiddleware, service_app
from tenantry.identity import CredentialStore, Identifier, KeySet, TokenVerifier

ISSUER = "https://tenant.example.com"
AUDIENCE = "app"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
A = UUID("0198a000-0000-7000-8000-00000000000a")
B = UUID("0198a000-0000-7000-8000-00000000000b")


@dataclass
class Issuer:
    """The tenant service as others see it: it signs, and publishes its keys."""

    clock: ManualClock
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", parameters={"kid": "key-1"}))
    keys: KeySet = field(default_factory=KeySet)

    def __post_init__(self):
        self.publish()

    def publish(self):
        self.keys.replace({"keys": [self.key.as_dict(private=False)]})

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token of tenant A; a change to None leaves the claim out."""
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "user-1",
            "iat": now,
            "exp": now + 600,
            "jti": "0198",
            "scope": "tenant:read tenant:write",
            "kind": "user",
            "tenant_id": str(A),
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, *, header: dict[str, Any] | None = None, key: ECKey | None = None, **changes: Any) -> str:
        return jwt.encode({"alg": "ES256", "kid": "key-1", **(header or {})}, self.claims(**changes), key or self.key)

    def bearer(self, **changes: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(**changes)}"}

    def operator(self, scope: str = "platform") -> dict[str, str]:
        return self.bearer(sub="operator", kind="operator", scope=scope, tenant_id=None)


def make_tenant(tenant_id: UUID, **changes: Any) -> Tenant:
    values: dict[str, Any] = {
        "id": TenantId(tenant_id),
        "external_id": f"org-{str(tenant_id)[-1]}",
        "slug": f"tenant-{str(tenant_id)[-1]}",
        "name": "Tenant",
        "status": TenantStatus.ACTIVE,
        "tier": "standard",
        "version": 1,
        "created_at": NOW,
    }
    return Tenant(**(values | changes))


@pytest.fixture(autouse=True)
def logs():
    """What is logged, instead of on the terminal."""
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def issuer(clock):
    return Issuer(clock)


@pytest.fixture
def tenant_of():
    return make_tenant


@pytest.fixture
def a():
    return make_tenant(A)


@pytest.fixture
def b():
    return make_tenant(B)


@pytest.fixture
def directory(a, b):
    return LocalDirectory.of([a, b])


@pytest.fixture
def credentials(clock):
    return CredentialStore(clock)


@pytest.fixture
def verifier(issuer, clock):
    return TokenVerifier(issuer.keys, issuer=ISSUER, audience=AUDIENCE, clock=clock)


@pytest.fixture
def identifier(directory, verifier, credentials):
    return Identifier(
        directory=directory, tokens=verifier, credentials=credentials, base_domains=["example.com", "localhost"]
    )


@pytest.fixture
def make_app(directory, identifier):
    """Builds an application with `GET` and `POST /v1/things/{thing}`, which answer who asks and for which tenant."""

    def build(**options: Any) -> FastAPI:
        app = service_app(title="Things", service="things", **options.pop("app", {}))
        app.add_middleware(TenancyMiddleware, service="things", directory=directory, identifier=identifier, **options)

        @app.post("/v1/things/{thing}")
        @app.get("/v1/things/{thing}")
        async def get_thing(thing: str, tenant: CurrentTenant, principal: CurrentPrincipal) -> dict[str, str]:
            return {"thing": thing, "tenant": str(tenant.id), "subject": principal.subject}

        return app

    return build


@pytest.fixture
def client_of():
    """A client of an application in process; errors of the application are its 500, as on a server."""

    def build(app: FastAPI) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    return build


@pytest.fixture
async def client(make_app, client_of):
    async with client_of(make_app()) as client:
        yield client


@pytest.fixture
def suspend(directory):
    """Publishes a new version of a tenant, as the directory gets it from the tenant service."""

    def publish(tenant: Tenant, **changes: Any) -> Tenant:
        known = directory.get(tenant.id)
        values = {name: getattr(known, name) for name in known.__struct_fields__}
        default = {"status": TenantStatus.SUSPENDED, "suspension_reasons": ("abuse",)}
        changed = Tenant(**(values | (changes or default) | {"version": known.version + 1}))
        directory.upsert(changed)
        return changed

    return publish


@pytest.fixture
def minutes():
    return lambda count: timedelta(minutes=count)

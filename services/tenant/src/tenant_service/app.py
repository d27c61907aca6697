"""The HTTP application of the tenant service."""

from fastapi import FastAPI

from tenant_service.audit.api import router as audit
from tenant_service.clocks.api import router as clocks
from tenant_service.config.api import router as config
from tenant_service.config.namespaces_api import router as config_schemas
from tenant_service.features.api import router as flags
from tenant_service.features.api import tenant_router as tenant_features
from tenant_service.identity.api import JWKS_PATH, TOKEN_PATH
from tenant_service.identity.api import keys_router as api_keys
from tenant_service.identity.api import router as tokens
from tenant_service.runs.api import clock_router as clock_runs
from tenant_service.runs.api import router as runs
from tenant_service.runtime import SERVICE, Runtime
from tenant_service.sessions.api import PAGE_PATH, SESSIONS_PATH
from tenant_service.sessions.api import router as sessions
from tenant_service.tenants.api import router as tenants
from tenant_service.tiers.api import router as tiers
from tenantry.http import TenancyMiddleware, service_app
from tenantry.identity import Identifier, TokenVerifier

# What answers without a credential: whoever calls these is about to get one, or checks somebody else's.
PUBLIC = (f"POST {TOKEN_PATH}", f"GET {JWKS_PATH}", f"POST {SESSIONS_PATH}", PAGE_PATH)


def create_app(runtime: Runtime) -> FastAPI:
    """The application on a started runtime."""
    app = service_app(title="Tenantry: tenant service", service=SERVICE, max_body_bytes=256 * 1024)
    app.state.runtime = runtime
    app.state.readiness["state"] = lambda: runtime.state.directory.ready
    for router in (tenants, runs, api_keys, tiers, tokens, sessions, audit):
        app.include_router(router)
    for router in (config, config_schemas, flags, tenant_features):
        app.include_router(router)
    if runtime.settings.test_clocks_enabled:
        app.include_router(clocks)
        app.include_router(clock_runs)
    app.add_middleware(
        TenancyMiddleware,
        service=SERVICE,
        directory=runtime.state.directory,
        identifier=Identifier(
            directory=runtime.state.directory,
            tokens=TokenVerifier(
                runtime.state.keys, issuer=runtime.settings.base_url, audience=SERVICE, clock=runtime.clock
            ),
            credentials=runtime.state.credentials,
            base_domains=runtime.settings.base_domains,
        ),
        public=PUBLIC,
        administrative=True,
    )
    return app

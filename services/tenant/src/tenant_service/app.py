"""The HTTP application of the tenant service."""

from fastapi import FastAPI

from tenant_service.audit.api import erasures_router as audit_erasures
from tenant_service.audit.api import router as audit
from tenant_service.branding.api import BODY_LIMITS as BRANDING_LIMITS
from tenant_service.branding.api import LOGO_PATH
from tenant_service.branding.api import router as branding
from tenant_service.clocks.api import router as clocks
from tenant_service.config.api import router as config
from tenant_service.config.master_key_api import router as master_key
from tenant_service.config.namespaces_api import router as config_schemas
from tenant_service.dependencies import RefuseWritesToTheGone
from tenant_service.domains.api import router as domains
from tenant_service.features.api import router as flags
from tenant_service.features.api import tenant_router as tenant_features
from tenant_service.identity.api import JWKS_PATH, METADATA_PATH, TOKEN_PATH
from tenant_service.identity.api import keys_router as api_keys
from tenant_service.identity.api import router as tokens
from tenant_service.invitations.api import router as invitations
from tenant_service.members.api import ME_PATH
from tenant_service.members.api import me_router as me
from tenant_service.members.api import router as members
from tenant_service.offboarding.api import purges
from tenant_service.offboarding.api import router as offboarding
from tenant_service.reconciling.api import router as reconciling
from tenant_service.revocations.api import router as revocations
from tenant_service.revocations.api import tenant_router as tenant_revocations
from tenant_service.routing.api import router as routing
from tenant_service.runs.api import clock_router as clock_runs
from tenant_service.runs.api import router as runs
from tenant_service.runtime import Runtime
from tenant_service.sessions.api import PAGE_PATH, SESSIONS_PATH
from tenant_service.sessions.api import router as sessions
from tenant_service.settings import SERVICE
from tenant_service.stores.api import router as stores
from tenant_service.support.api import router as support
from tenant_service.tenants.api import BODY_LIMITS as TENANTS_LIMITS
from tenant_service.tenants.api import router as tenants
from tenant_service.tiers.api import router as tiers
from tenantry.http import RequestLimiting, TenancyMiddleware, service_app
from tenantry.limits import FairGate, Limiter

# What answers without a credential: whoever calls these is about to get one, or checks somebody else's.
PUBLIC = (
    f"GET {LOGO_PATH}",
    f"POST {TOKEN_PATH}",
    f"GET {JWKS_PATH}",
    f"GET {METADATA_PATH}",
    f"POST {SESSIONS_PATH}",
    PAGE_PATH,
)

# Whatever has happened to their tenant, people see who they are, leave, and go on in another one.
ABOUT_THE_CALLER = dict.fromkeys((ME_PATH, f"{SESSIONS_PATH}/current", f"{SESSIONS_PATH}/current/switch"))


def create_app(runtime: Runtime) -> FastAPI:
    """The application on a started runtime."""
    app = service_app(
        title="Tenantry: tenant service",
        service=SERVICE,
        max_body_bytes=256 * 1024,
        body_limits=BRANDING_LIMITS | TENANTS_LIMITS,
    )
    app.state.runtime = runtime
    app.state.readiness["state"] = lambda: runtime.state.directory.ready
    routers = [tenants, runs, api_keys, tiers, tokens, sessions, audit, members, me, invitations, domains, support]
    routers += [config, config_schemas, flags, tenant_features, branding, master_key, stores, offboarding]
    routers += [revocations, tenant_revocations, purges, reconciling, routing, audit_erasures]
    if runtime.settings.test_clocks_enabled:
        routers += [clocks, clock_runs]
    for router in routers:
        app.include_router(router, dependencies=[RefuseWritesToTheGone])
    platform, state = runtime.platform, runtime.state
    gate = FairGate(platform.max_in_flight, max_waiting=platform.max_waiting, wait=platform.queue_seconds, paced=True)
    limiter = Limiter(
        SERVICE, state.directory, config=state.configuration.config, gate=gate, replicas=platform.replicas
    )
    app.add_middleware(
        TenancyMiddleware,
        service=SERVICE,
        directory=state.directory,
        identifier=runtime.identifier,
        public=PUBLIC,
        operations=ABOUT_THE_CALLER,
        administrative=True,
        limiting=RequestLimiting(limiter),
        recheck_seconds=platform.recheck_seconds,
        staleness=lambda: state.lag_seconds,
        max_staleness=platform.max_staleness_seconds,
        stale_writes=platform.stale_writes,
        top_tenants=platform.metrics_top_tenants,
    )
    return app

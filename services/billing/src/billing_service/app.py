"""The HTTP application of the billing service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from billing_service.bill_from.api import router as bill_from
from billing_service.catalog.api import router as catalog
from billing_service.dashboard.api import PAGE_PATH, STATIC_PATH
from billing_service.dashboard.api import router as console
from billing_service.dashboard.live import LivePage
from billing_service.dashboard.render import STATIC, Fragments
from billing_service.dashboard.stream import Hub
from billing_service.domain.errors import BillingRuleError
from billing_service.invoicing.api import router as invoicing
from billing_service.invoicing.evidence import UsageEvidence
from billing_service.invoicing.verify_api import router as verifying
from billing_service.runtime import SERVICE, Runtime, running
from billing_service.subscriptions.api import router as subscriptions
from billing_service.usage.consumers import GROUP, TOPIC
from tenantry import InvalidRequest
from tenantry.http import problem, service_app

# The page sends people to sign in instead of answering 401; its style and script say nothing about anybody.
PUBLIC = (PAGE_PATH, f"{STATIC_PATH}/*")


def create_app(runtime: Runtime) -> FastAPI:
    """The application and its live page; its lifespan opens the runtime and closes it."""
    tenancy, settings = runtime.tenancy, runtime.settings
    hub, fragments = Hub(), Fragments()
    live = LivePage(
        tenancy.databases,
        runtime.kafka,
        runtime.source.directory,
        tenancy.clock,
        hub,
        fragments,
        stages={
            "Events to count": (settings.usage_group, "usage.events.v1"),
            "Rollups to bill": (GROUP, TOPIC),
        },
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tenancy.run(), running(runtime.when_ready(live.run)):
            yield

    app = service_app(title="Tenantry: billing service", service=SERVICE, lifespan=lifespan)
    app.state.settings = settings
    app.state.evidence = UsageEvidence(partial(tenancy.client, "usage"))
    app.state.hub, app.state.fragments, app.state.live = hub, fragments, live
    app.add_exception_handler(BillingRuleError, _on_rule_violation)
    for router in (catalog, subscriptions, bill_from, invoicing, verifying, console):
        app.include_router(router)
    app.mount(STATIC_PATH, StaticFiles(directory=STATIC), name="console-static")
    tenancy.install(app, public=PUBLIC, administrative=True)
    return app


async def _on_rule_violation(request: Request, error: Exception) -> Response:
    return problem(InvalidRequest(str(error)), request.url.path)

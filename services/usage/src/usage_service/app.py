"""The HTTP application of the usage service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import Route

from tenantry import Operation, Tenancy
from tenantry.events import KafkaSettings, UsageProducer
from tenantry.http import DirectRoute, by_length, service_app
from usage_service.archive.reading import ArchiveReader
from usage_service.archive.store import ArchiveStore
from usage_service.corrections.api import router as corrections
from usage_service.corrections.service import Corrections
from usage_service.dead_letters.api import router as dead_letters
from usage_service.dead_letters.replaying import Replays
from usage_service.dead_letters.service import keep_late_events
from usage_service.entitlements.api import router as features
from usage_service.entitlements.api import tenant_router as entitlements
from usage_service.erasure.api import router as erasures
from usage_service.evidence.api import router as evidence
from usage_service.ingest.endpoint import IngestEndpoint, Limits
from usage_service.ingest.history import History
from usage_service.ingest.memory import IngestMemory
from usage_service.ingest.openapi import document_ingest
from usage_service.ingest.rates import UNIT_BYTES, IngestRates, units
from usage_service.ingest.routes import RouteTable
from usage_service.metering.worker import TOPIC
from usage_service.meters.api import router as meters
from usage_service.publishing.api import rollups
from usage_service.publishing.api import router as cuts
from usage_service.publishing.ends import TopicEnds
from usage_service.queries.api import router as queries
from usage_service.retention.api import router as retention
from usage_service.routing.api import router as routing
from usage_service.settings import UsageSettings
from usage_service.tokens.api import router as tokens
from usage_service.tokens.vault import TokenVault, TreatedFields

SERVICE = "usage"
EVENTS_PATH = "/v1/events"


def create_app(settings: UsageSettings, tenancy: Tenancy, kafka: KafkaSettings) -> FastAPI:
    """The application; its lifespan runs the tenancy, the producer of events and the connection for cuts."""
    producer = UsageProducer(kafka, max_pending_bytes=settings.max_in_flight_bytes)
    ends = TopicEnds(kafka, TOPIC)
    history = History(kafka)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tenancy.run():
            archive = await ArchiveStore.open_to_read(settings.archive_url, settings.archive_directory)
            app.state.archive = ArchiveReader(tenancy.databases, archive)
            await producer.start()
            try:
                yield
            finally:
                await history.stop()
                await producer.stop()
                await ends.close()

    app = service_app(
        title="Tenantry: usage service",
        service=SERVICE,
        lifespan=lifespan,
        body_limits={f"POST {EVENTS_PATH}": settings.max_body_bytes},
    )
    app.state.ends = ends
    app.state.terms = settings.terms
    # A batch counts by its size, or as the largest where it does not say.
    cost = by_length(UNIT_BYTES, undeclared=units(settings.max_body_bytes))
    fields = TreatedFields(settings.field_rules, TokenVault(tenancy.databases))
    endpoint = IngestEndpoint(
        directory=tenancy.directory,
        clock=tenancy.clock,
        sender=producer,
        limits=Limits(max_events=settings.max_batch_events, max_body_bytes=settings.max_body_bytes),
        memory=IngestMemory(settings.max_in_flight_bytes, lambda: producer.pending_bytes),
        rates=IngestRates(tenancy.limiter, tenancy.directory, cost),
        keep_late=partial(keep_late_events, tenancy.databases, tenancy.clock),
        refuse_billed=history.refuse_billed,
        fields=fields,
        region=tenancy.settings.region,
    )
    route = Route(EVENTS_PATH, endpoint.receive, methods=["POST"])
    app.router.routes.append(route)
    app.user_middleware.append(Middleware(DirectRoute, route=route))
    routes = partial(
        RouteTable, tenancy.directory, tenancy.clock, Operation.SERVICE_INGEST, region=tenancy.settings.region
    )
    of_any_age = routes(accept_late=True)
    app.state.replays = Replays(
        of_any_age,
        producer,
        Corrections(of_any_age, producer, fields=None),
        fields,
        settings.dedupe_window_days,
    )
    app.state.corrections = Corrections(
        routes(),
        producer,
        fields,
    )
    for router in (
        queries,
        evidence,
        corrections,
        dead_letters,
        meters,
        cuts,
        rollups,
        features,
        entitlements,
        retention,
        routing,
        erasures,
        tokens,
    ):
        app.include_router(router)
    document_ingest(app, EVENTS_PATH)
    # An operator may look at the usage of a suspended tenant, and a service sends it until the tenant is purged: the
    # endpoint asks each event's tenant itself.
    tenancy.install(
        app,
        operations={f"POST {EVENTS_PATH}": Operation.INGEST},
        administrative=True,
        costs={f"POST {EVENTS_PATH}": cost},
    )
    return app

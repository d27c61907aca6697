"""The HTTP application of the usage service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from tenantry import Operation, Tenancy
from tenantry.events import KafkaSettings, UsageProducer
from tenantry.http import by_length, service_app
from usage_service.ingest.endpoint import IngestEndpoint, Limits
from usage_service.ingest.openapi import document_ingest
from usage_service.metering.worker import TOPIC
from usage_service.meters.api import router as meters
from usage_service.publishing.api import router as cuts
from usage_service.publishing.ends import TopicEnds
from usage_service.queries.api import router as queries
from usage_service.settings import UsageSettings

SERVICE = "usage"
EVENTS_PATH = "/v1/events"
COST_BYTES = 64 * 1024


def create_app(settings: UsageSettings, tenancy: Tenancy, kafka: KafkaSettings) -> FastAPI:
    """The application; its lifespan runs the tenancy, the producer of events and the connection for cuts."""
    producer = UsageProducer(kafka)
    ends = TopicEnds(kafka, TOPIC)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tenancy.run():
            await producer.start()
            try:
                yield
            finally:
                await producer.stop()
                await ends.close()

    app = service_app(
        title="Tenantry: usage service",
        service=SERVICE,
        lifespan=lifespan,
        body_limits={f"POST {EVENTS_PATH}": settings.max_body_bytes},
    )
    app.state.ends = ends
    endpoint = IngestEndpoint(
        directory=tenancy.directory,
        clock=tenancy.clock,
        sender=producer,
        limits=Limits(max_events=settings.max_batch_events),
    )
    app.add_route(EVENTS_PATH, endpoint.receive, methods=["POST"])
    for router in (queries, meters, cuts):
        app.include_router(router)
    document_ingest(app, EVENTS_PATH)
    # An operator may look at the usage of a suspended tenant, and a service sends it until the tenant is purged: the
    # endpoint asks each event's tenant itself.
    tenancy.install(
        app,
        operations={f"POST {EVENTS_PATH}": Operation.INGEST},
        administrative=True,
        # A batch counts by its size, or as the largest where it does not say.
        costs={f"POST {EVENTS_PATH}": by_length(COST_BYTES, undeclared=-(-settings.max_body_bytes // COST_BYTES))},
    )
    return app

"""One trace from the request for a tenant to the answer of the service that provides for it."""

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenant_service.runs.consumers import acks_handler
from tenant_service.runs.engine import take_turns
from tenant_service.runs.steps import STEPS
from tenantry import SystemClock, configure_tracing, spawn
from tenantry._tracing import stop_tracing
from tenantry.events import (
    KafkaSettings,
    OutboxRelay,
    RequestResponder,
    TransactionalConsumer,
    create_topics,
)
from tenantry.testing import eventually

TENANT_REQUESTS, TENANT_ACKS = "tenant.requests.v1", "tenant.acks.v1"
CALLER = f"00-{'c' * 32}-{'d' * 16}-01"
NAME = "canary-of-a-name"


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    configure_tracing("test", exporter=exporter)
    yield exporter.get_finished_spans
    stop_tracing()


async def test_request_outbox_relay_consumer_and_answer_are_one_trace(
    spans, start_api, service_database, kafka_bootstrap, kafka_prefix
):
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    await create_topics(kafka)
    api = await start_api(required_services=["app"])
    await api.sign_in()

    async def provide(_request):
        return {"made": True}

    async def is_active():
        async with api.runtime.transactions.begin() as session:
            await take_turns(session, STEPS, api.runtime.settings.saga(), api.runtime.clock.now())
        answer = await api.http.get(f"/v1/tenants/{tenant['id']}")
        return answer.json()["status"] == "active"

    async with service_database("tenant").databases() as mine, service_database("app").databases() as apps:
        acks = TransactionalConsumer(
            kafka=kafka,
            engine=mine.system,
            group="tenant-acks",
            topics=[TENANT_ACKS],
            handle=acks_handler(SystemClock()),
        )
        works = [
            spawn(None, work)
            for work in (
                OutboxRelay("tenant", mine.system, kafka).run(),
                OutboxRelay("app", apps.system, kafka).run(),
                RequestResponder("app", kafka, apps.system, {"tenant.provision": provide}).run(),
                acks.run(),
            )
        ]
        try:
            api.http.headers["traceparent"] = CALLER
            tenant = await api.create(name=NAME)
            del api.http.headers["traceparent"]
            await eventually(is_active, within=60)
        finally:
            for work in works:
                work.cancel()

    mine = {one.context.span_id: one for one in spans() if f"{one.context.trace_id:032x}" == "c" * 32}
    by_name = {one.name: one for one in mine.values()}

    def origin(name):
        """The names from the span's parent up to the request."""
        one, above = by_name[name], []
        while one.parent is not None and one.parent.span_id in mine:
            one = mine[one.parent.span_id]
            above.append(one.name)
        return above

    request = ["POST /v1/tenants"]
    assert f"{by_name['POST /v1/tenants'].parent.span_id:016x}" == "d" * 16
    assert origin("step provision request_services") == request
    assert origin(f"publish {TENANT_REQUESTS}") == request
    assert origin("answer tenant.provision")[0] == f"publish {TENANT_REQUESTS}"
    assert origin(f"publish {TENANT_ACKS}")[0] == "answer tenant.provision"
    assert origin(f"process {kafka.group('tenant-acks')}") == [
        f"publish {TENANT_ACKS}",
        "answer tenant.provision",
        f"publish {TENANT_REQUESTS}",
        *request,
    ]
    assert by_name[f"publish {TENANT_REQUESTS}"].attributes["tenant.id"] == tenant["id"]
    for one in spans():
        assert NAME not in one.to_json()
        assert "a@example.org" not in one.to_json()

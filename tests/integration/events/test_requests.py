"""Requests of sagas: answered by whom they name, once in effect, with the offset."""

from uuid import uuid4

import msgspec
import pytest

from tenantry import Conflict
from tenantry.events import Ack, OutboxRelay, RequestResponder, append_outbox, create_topics, decode
from tenantry.testing import eventually


@pytest.fixture
async def ask(kafka, broker, engine, running):
    await create_topics(kafka, only=["tenant.requests.v1", "tenant.acks.v1"])
    running.start(OutboxRelay("tenant", engine, kafka).run())

    async def ask(kind: str, services: list[str], version: int = 1) -> str:
        request_id, tenant = str(uuid4()), uuid4()
        async with engine.begin() as connection:
            await append_outbox(
                connection,
                topic="tenant.requests.v1",
                key=str(tenant),
                type="tenant.provision_requested.v1",
                data={"request_id": request_id, "kind": kind, "services": services, "tenant_id": tenant, "data": {}},
                tenant_id=tenant,
                version=version,
            )
        return request_id

    return ask


async def test_each_request_that_names_the_service_is_answered(kafka, broker, engine, running, ask):
    calls: dict[str, int] = {}

    async def provision(request):
        calls[request.kind] = calls.get(request.kind, 0) + 1
        return {"schema": f"t_{request.tenant_id.hex}"}

    async def refuse(_request):
        raise Conflict("the schema belongs to another tenant")

    async def break_down(_request):
        raise KeyError("a mistake")

    async def wait_for_server(request):
        calls[request.kind] = calls.get(request.kind, 0) + 1
        if calls[request.kind] == 1:
            raise ConnectionRefusedError

    handlers = {"provision": provision, "refuse": refuse, "break": break_down, "wait": wait_for_server}
    running.start(RequestResponder("app", kafka, engine, handlers).run())
    asked = {kind: await ask(kind, ["app", "usage"]) for kind in handlers}
    await ask("provision", ["usage"])
    await ask("unknown", ["app"])
    records = await broker.read("tenant.acks.v1", 4)
    acks = {ack.request_id: ack for ack in (msgspec.convert(decode(record).data, Ack) for record in records)}
    answers = {kind: next(ack for id_, ack in acks.items() if str(id_) == request) for kind, request in asked.items()}
    assert {kind: ack.outcome for kind, ack in answers.items()} == {
        "provision": "done",
        "refuse": "failed",
        "break": "failed",
        "wait": "done",
    }
    assert answers["provision"].result["schema"].startswith("t_")
    assert answers["refuse"].error_code == "conflict"
    assert answers["refuse"].detail == "the schema belongs to another tenant"
    assert answers["break"].detail == "KeyError"
    await eventually(lambda: calls["wait"] == 2)
    assert len(await broker.read("tenant.acks.v1", 5, within=1)) == 4

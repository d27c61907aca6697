"""Requests of sagas: answered by whom they name, once in effect, with the offset."""

import asyncio
from uuid import UUID, uuid4

import msgspec
import pytest

from tenantry import Conflict
from tenantry.events import (
    LATER,
    Ack,
    Lane,
    NotYet,
    OutboxRelay,
    RequestResponder,
    append_outbox,
    create_topics,
    decode,
)
from tenantry.testing import eventually


@pytest.fixture
async def ask(kafka, broker, engine, running):
    await create_topics(kafka, only=["tenant.requests.v1", "tenant.acks.v1"])
    running.start(OutboxRelay("tenant", engine, kafka).run())

    async def ask(kind: str, services: list[str], version: int = 1, tenant: UUID | None = None, **about: object) -> str:
        request_id, tenant = str(uuid4()), tenant or uuid4()
        async with engine.begin() as connection:
            await append_outbox(
                connection,
                topic="tenant.requests.v1",
                key=str(tenant),
                type="tenant.provision_requested.v1",
                data={"request_id": request_id, "kind": kind, "services": services, "tenant_id": tenant, "data": about},
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


async def test_a_slow_request_delays_only_its_like(kafka, broker, engine, running, ask):
    released = asyncio.Event()

    async def slow(_request):
        await released.wait()

    async def quick(_request):
        return {"quick": True}

    responder = RequestResponder("app", kafka, engine, {"slow": slow, "quick": quick}, lanes={"quick": Lane.QUICK})
    assert responder.consumers.keys() == {Lane.SLOW, Lane.QUICK}
    running.start(responder.run())
    waiting = await ask("slow", ["app"])
    quickly = {await ask("quick", ["app"]) for _ in range(20)}
    records = await broker.read("tenant.acks.v1", 20)
    assert {str(msgspec.convert(decode(record).data, Ack).request_id) for record in records} == quickly
    released.set()
    records = await broker.read("tenant.acks.v1", 21)
    answered = {str(msgspec.convert(decode(record).data, Ack).request_id) for record in records}
    assert answered == {*quickly, waiting}


async def test_requests_of_a_tenant_keep_their_order_in_a_lane(kafka, broker, engine, running, ask):
    tenants = [uuid4() for _ in range(5)]
    seen: dict[object, list[str]] = {}

    async def note(request):
        # The first takes longest: without an order of the tenant's own, the last would be the first one noted.
        await asyncio.sleep(0.05 if request.kind == "first" else 0)
        seen.setdefault(request.tenant_id, []).append(request.kind)

    handlers = dict.fromkeys(("first", "second", "third"), note)
    for version, kind in enumerate(handlers):
        for tenant in tenants:
            await ask(kind, ["app"], version, tenant=tenant)
    running.start(RequestResponder("app", kafka, engine, handlers, lanes=dict.fromkeys(handlers, Lane.QUICK)).run())
    await broker.read("tenant.acks.v1", 15)
    assert seen == {tenant: ["first", "second", "third"] for tenant in tenants}


async def test_an_answer_may_come_later_or_be_asked_for_again(kafka, broker, engine, running, ask):
    async def later(_request):
        return LATER

    async def not_yet(_request):
        raise NotYet("state-not-applied", "version 3 is not known here")

    running.start(RequestResponder("app", kafka, engine, {"later": later, "not-yet": not_yet}).run())
    await ask("later", ["app"])
    again = await ask("not-yet", ["app"])
    (record,) = await broker.read("tenant.acks.v1", 1)
    ack = msgspec.convert(decode(record).data, Ack)
    assert (str(ack.request_id), ack.outcome, ack.error_code, ack.retryable) == (
        again,
        "failed",
        "state-not-applied",
        True,
    )
    assert len(await broker.read("tenant.acks.v1", 2, within=1)) == 1


@pytest.mark.parametrize(
    ("lanes", "used"),
    [
        ({}, {Lane.SLOW}),
        ({"a": Lane.WAITING, "b": Lane.WAITING}, {Lane.WAITING}),
        ({"a": Lane.WAITING}, {Lane.WAITING, Lane.SLOW}),
        ({"a": lambda _request: Lane.QUICK, "b": Lane.WAITING}, {Lane.QUICK, Lane.SLOW, Lane.WAITING}),
    ],
)
async def test_only_the_lanes_that_are_used_are_read(kafka, engine, lanes, used):
    async def nothing(_request):
        return None

    assert RequestResponder("app", kafka, engine, {"a": nothing, "b": nothing}, lanes=lanes).consumers.keys() == used


async def test_deployments_of_regions_each_answer_for_their_own(kafka, broker, engine, running, ask):
    seen: dict[str, list[str]] = {"eu": [], "us": []}

    def handler_of(region):
        async def provision(request):
            seen[region].append(str(request.request_id))

        return provision

    for region in seen:
        settings = kafka.model_copy(update={"deployment": region})
        handlers = {"provision": handler_of(region)}
        running.start(RequestResponder("app", settings, engine, handlers, region=region).run())
    asked = {region: await ask("provision", ["app"], region=region) for region in ("eu", "us", None)}
    await eventually(lambda: sum(map(len, seen.values())) == 4, within=60)
    assert {region: set(ids) for region, ids in seen.items()} == {
        region: {asked[region], asked[None]} for region in seen
    }


async def test_without_deployments_no_request_is_left_to_others(kafka, broker, engine, running, ask):
    async def provision(_request):
        return {}

    running.start(RequestResponder("app", kafka, engine, {"provision": provision}, region="eu").run())
    await ask("provision", ["app"], region="us")
    assert len(await broker.read("tenant.acks.v1", 1)) == 1

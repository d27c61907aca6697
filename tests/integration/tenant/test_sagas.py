"""Provisioning as a durable saga: answers, failures, retries, cancelling."""

from datetime import timedelta

import anyio
import pytest

from tenant_service.audit import Actor
from tenant_service.domain.saga import AckOutcome, RunState, StepName, StepState
from tenant_service.runs.due_steps import claim_due_steps
from tenant_service.runs.service import RunNotStuck, RunOver, cancel_run, retry_run
from tenant_service.runs.steps import place
from tenantry import TenantStatus

OPERATOR = Actor(subject="operator", kind="operator", credential_id="test")


async def states_of(platform, tenant):
    (run,) = await platform.runs(tenant.id)
    return run.row.state, [step.state for step in run.steps]


async def test_a_tenant_is_active_when_every_service_has_answered(platform):
    tenant = await platform.create(isolation="schema")
    assert tenant.status is TenantStatus.REQUESTED

    taken = await platform.turns()
    assert [(turn.step, turn.state) for turn in taken] == [
        (StepName.PLACE, StepState.SUCCEEDED),
        (StepName.REQUEST_SERVICES, StepState.WAITING),
    ]
    waiting = await platform.get(tenant.id)
    assert waiting.status is TenantStatus.PROVISIONING
    (request,) = await platform.requests(tenant.id)
    assert request["kind"] == "tenant.provision"
    assert request["services"] == ["app"]
    assert request["tenant_id"] == str(tenant.id)
    assert request["data"]["placement"] == {"store": "primary", "isolation": "schema", "epoch": 1}

    await platform.answer_all(tenant.id)
    await platform.turns()

    active = await platform.get(tenant.id)
    assert active.status is TenantStatus.ACTIVE
    assert active.activated_at == platform.clock.now()
    assert active.placement.isolation == "schema"
    assert await states_of(platform, tenant) == (RunState.SUCCEEDED, [StepState.SUCCEEDED] * 3)


async def test_every_change_publishes_the_whole_tenant_with_a_rising_version(platform):
    tenant = await platform.create(external_id="org-4711", metadata={"a": 1})
    await platform.turns()
    await platform.answer_all(tenant.id)
    await platform.turns()
    documents = await platform.outbox("tenant.state.v1", str(tenant.id))
    assert [row["version"] for row in documents] == [1, 2, 3]
    assert [row["payload"]["status"] for row in documents] == ["requested", "provisioning", "active"]
    last = documents[-1]["payload"]
    assert last["external_id"] == "org-4711"
    assert last["metadata"] == {"a": 1}
    assert last["blocked"] == []
    assert last["version"] == 3
    story = await platform.outbox("tenant.events.v1", str(tenant.id))
    assert [row["type"] for row in story] == [
        "tenant.created.v1",
        "tenant.provisioning_started.v1",
        "tenant.activated.v1",
    ]
    assert await platform.audit(tenant.id) == ["tenant.create", "tenant.provision", "tenant.activate"]


async def test_repeated_late_and_unknown_answers_are_harmless(platform, make_ack):
    tenant = await platform.create()
    await platform.turns()
    (request,) = await platform.requests(tenant.id)
    unknown = {**request, "request_id": str(tenant.id)}
    assert await platform.answer(make_ack(unknown, "app"), make_ack(request, "someone-else")) == 0
    assert await platform.turns() == []
    assert await platform.answer(make_ack(request, "app")) == 1
    assert await platform.answer(make_ack(request, "app", AckOutcome.FAILED, error_code="late")) == 0
    await platform.turns()
    assert await platform.answer(make_ack(request, "app")) == 0
    assert await platform.turns() == []
    assert (await platform.get(tenant.id)).version == 3


async def test_a_refusal_fails_the_provisioning_with_its_reason(platform, make_ack):
    tenant = await platform.create()
    await platform.turns()
    (request,) = await platform.requests(tenant.id)
    await platform.answer(make_ack(request, "app", AckOutcome.FAILED, error_code="disk-full", detail="no space left"))
    await platform.turns()

    failed = await platform.get(tenant.id)
    assert failed.status is TenantStatus.PROVISIONING_FAILED
    (run,) = await platform.runs(tenant.id)
    assert run.row.state is RunState.NEEDS_OPERATOR
    step = run.steps[1]
    assert (step.state, step.error_code, step.error_detail) == (StepState.FAILED, "disk-full", "app: no space left")
    story = await platform.outbox("tenant.events.v1", str(tenant.id))
    assert story[-1]["type"] == "tenant.provisioning_failed.v1"
    assert "no space left" in story[-1]["payload"]["reason"]


async def test_an_operator_tries_again_from_the_step_that_failed(platform, make_ack):
    tenant = await platform.create()
    await platform.turns()
    (first,) = await platform.requests(tenant.id)
    await platform.answer(make_ack(first, "app", AckOutcome.FAILED, error_code="disk-full"))
    await platform.turns()
    (run,) = await platform.runs(tenant.id)
    async with platform.transactions.begin() as session:
        await retry_run(session, tenant.id, run.row.id, actor=OPERATOR, now=platform.clock.now())
    assert (await platform.get(tenant.id)).status is TenantStatus.PROVISIONING
    await platform.turns()
    requests = await platform.requests(tenant.id)
    assert len(requests) == 2
    assert requests[0]["request_id"] != requests[1]["request_id"]
    # What is asked for is the same piece of work.
    assert requests[0]["data"] == requests[1]["data"]
    await platform.answer_all(tenant.id)
    await platform.turns()
    assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE
    async with platform.transactions.begin() as session:
        with pytest.raises(RunNotStuck):
            await retry_run(session, tenant.id, run.row.id, actor=OPERATOR, now=platform.clock.now())


async def test_silence_is_asked_again_until_the_budget_is_used_up(platform):
    tenant = await platform.create()
    await platform.turns()
    for attempt in (1, 2):
        platform.clock.advance(timedelta(seconds=29))
        assert await platform.turns() == []
        platform.clock.advance(timedelta(seconds=1))
        await platform.turns()
        (run,) = await platform.runs(tenant.id)
        step = run.steps[1]
        assert (step.state, step.attempt, step.error_code) == (StepState.PENDING, attempt, "no-answer")
        assert step.next_retry_at == platform.clock.now() + timedelta(seconds=5)
        platform.clock.advance(timedelta(seconds=5))
        await platform.turns()
        assert len(await platform.requests(tenant.id)) == attempt + 1
    platform.clock.advance(timedelta(seconds=30))
    await platform.turns()
    assert await states_of(platform, tenant) == (
        RunState.NEEDS_OPERATOR,
        [StepState.SUCCEEDED, StepState.FAILED, StepState.QUEUED],
    )
    assert (await platform.get(tenant.id)).status is TenantStatus.PROVISIONING_FAILED


async def test_an_answer_to_an_earlier_attempt_is_an_answer(platform, make_ack):
    tenant = await platform.create()
    await platform.turns()
    platform.clock.advance(timedelta(seconds=30))
    await platform.turns()
    platform.clock.advance(timedelta(seconds=5))
    await platform.turns()
    first, _second = await platform.requests(tenant.id)
    await platform.answer(make_ack(first, "app"))
    await platform.turns()
    assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE


async def test_a_cancelled_run_that_had_not_begun_is_over(platform):
    tenant = await platform.create()
    (run,) = await platform.runs(tenant.id)
    async with platform.transactions.begin() as session:
        await cancel_run(session, tenant.id, run.row.id, actor=OPERATOR, now=platform.clock.now())
    assert await platform.turns() == []
    assert (await platform.get(tenant.id)).status is TenantStatus.CANCELLED
    assert await states_of(platform, tenant) == (RunState.CANCELLED, [StepState.CANCELLED] * 3)
    async with platform.transactions.begin() as session:
        with pytest.raises(RunOver):
            await cancel_run(session, tenant.id, run.row.id, actor=OPERATOR, now=platform.clock.now())


async def test_a_step_that_raises_is_undone_and_tried_again(platform):
    tenant = await platform.create()

    async def broken(session, claimed, settings, now):
        await place(session, claimed, settings, now)
        raise RuntimeError("row value 4711")

    await platform.turn({StepName.PLACE: broken})
    (run,) = await platform.runs(tenant.id)
    step = run.steps[0]
    assert (step.state, step.attempt) == (StepState.PENDING, 1)
    assert (step.error_code, step.error_detail) == ("unexpected", "RuntimeError")
    assert (await platform.get(tenant.id)).version == 1
    assert len(await platform.outbox("tenant.state.v1", str(tenant.id))) == 1
    platform.clock.advance(timedelta(seconds=5))
    await platform.turns()
    assert (await platform.get(tenant.id)).status is TenantStatus.PROVISIONING


async def test_workers_never_hold_the_same_step(platform):
    for _ in range(3):
        await platform.create()
    seen = []

    async def claim(claimed: anyio.Event, release: anyio.Event):
        async with platform.transactions.begin() as session:
            found = await claim_due_steps(session, platform.clock.now(), 1)
            seen.append(found[0].run.id if found else None)
            claimed.set()
            await release.wait()

    release = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            claimed = anyio.Event()
            tasks.start_soon(claim, claimed, release)
            await claimed.wait()
        release.set()
    assert len(set(seen)) == 4
    assert seen[3] is None


async def test_nobody_required_means_active_at_once(platform):
    platform.settings = platform.settings.__class__(
        services=dict.fromkeys(platform.settings.services, ()), retry=platform.settings.retry
    )
    tenant = await platform.create()
    await platform.turns()
    assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE
    assert await platform.requests(tenant.id) == []

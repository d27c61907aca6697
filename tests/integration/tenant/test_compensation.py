"""Giving up a provisioning: the services give back what they have made, however often somebody dies in between."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from tenant_service.audit import Actor
from tenant_service.domain.saga import AckOutcome, RunState, StepName, StepState
from tenant_service.runs.schemas import RunOut
from tenant_service.runs.service import RunBeingUndone, RunOver, cancel_run, retry_run
from tenant_service.runs.steps import STEPS
from tenantry import InvalidRequest, TenantStatus

OPERATOR = Actor(subject="operator", kind="operator", credential_id="test")
DYING_WORKER = Path(__file__).with_name("dying_worker.py")


async def cancel(platform, tenant):
    run = (await platform.runs(tenant.id))[-1]
    async with platform.transactions.begin() as session:
        return await cancel_run(session, tenant.id, run.row.id, actor=OPERATOR, now=platform.clock.now())


async def retry(platform, tenant, from_step=None):
    run = (await platform.runs(tenant.id))[-1]
    async with platform.transactions.begin() as session:
        return await retry_run(
            session, tenant.id, run.row.id, actor=OPERATOR, now=platform.clock.now(), from_step=from_step
        )


async def kinds(platform, tenant):
    return [request["kind"] for request in await platform.requests(tenant.id)]


async def test_a_cancelled_provisioning_is_undone_in_reverse_order(platform):
    tenant = await platform.create(isolation="schema")
    await platform.turns()
    cancelled = await cancel(platform, tenant)
    assert cancelled.row.state is RunState.COMPENSATING
    assert (await platform.get(tenant.id)).status is TenantStatus.CANCELLED

    await platform.turns()
    provision, release = await platform.requests(tenant.id)
    assert (release["kind"], release["services"]) == ("tenant.release", ["app"])
    assert release["data"]["placement"] == provision["data"]["placement"]
    rows = await platform.outbox("tenant.requests.v1", str(tenant.id))
    assert rows[0]["version"] < rows[1]["version"]
    assert (await platform.get(tenant.id)).placement is not None

    await platform.answer_all(tenant.id)
    await platform.turns()
    (run,) = await platform.runs(tenant.id)
    assert run.row.state is RunState.CANCELLED
    assert run.row.ended_at == platform.clock.now()
    assert [(step.name, step.state) for step in run.steps] == [
        (StepName.PLACE, StepState.SUCCEEDED),
        (StepName.REQUEST_SERVICES, StepState.CANCELLED),
        (StepName.ACTIVATE, StepState.CANCELLED),
        (StepName.RELEASE_SERVICES, StepState.SUCCEEDED),
        (StepName.WITHDRAW_PLACE, StepState.SUCCEEDED),
    ]
    assert (await platform.get(tenant.id)).placement is None
    shown = RunOut.of(run)
    assert [step.compensation for step in shown.steps[:3]] == [StepState.SUCCEEDED, StepState.SUCCEEDED, None]
    assert [step.compensates for step in shown.steps[3:]] == [StepName.REQUEST_SERVICES, StepName.PLACE]
    with pytest.raises(RunOver):
        await cancel(platform, tenant)


async def test_a_failed_provisioning_is_undone_as_well(platform, make_ack):
    tenant = await platform.create()
    await platform.turns()
    (request,) = await platform.requests(tenant.id)
    await platform.answer(make_ack(request, "app", AckOutcome.FAILED, error_code="disk-full"))
    await platform.turns()
    await cancel(platform, tenant)
    await platform.turns()
    assert await kinds(platform, tenant) == ["tenant.provision", "tenant.release"]


async def test_an_answer_to_the_provisioning_does_not_stop_the_undoing(platform):
    tenant = await platform.create()
    await platform.turns()
    await cancel(platform, tenant)
    await platform.answer_all(tenant.id)
    await platform.turns()
    assert (await platform.get(tenant.id)).status is TenantStatus.CANCELLED
    assert await kinds(platform, tenant) == ["tenant.provision", "tenant.release"]


async def test_an_undoing_that_fails_waits_for_an_operator_who_tries_again_or_leaves_it(platform, make_ack):
    tenant = await platform.create()
    await platform.turns()
    await cancel(platform, tenant)
    with pytest.raises(RunBeingUndone):
        await cancel(platform, tenant)
    await platform.turns()
    release = (await platform.requests(tenant.id))[-1]
    await platform.answer(make_ack(release, "app", AckOutcome.FAILED, error_code="in-use", detail="it has a tenant"))
    await platform.turns()
    (run,) = await platform.runs(tenant.id)
    assert run.row.state is RunState.NEEDS_OPERATOR
    assert run.steps[3].error_code == "in-use"
    assert (await platform.get(tenant.id)).status is TenantStatus.CANCELLED

    await retry(platform, tenant)
    await platform.turns()
    assert await kinds(platform, tenant) == ["tenant.provision", "tenant.release", "tenant.release"]
    assert (await platform.get(tenant.id)).status is TenantStatus.CANCELLED
    release = (await platform.requests(tenant.id))[-1]
    await platform.answer(make_ack(release, "app", AckOutcome.FAILED, error_code="in-use"))
    await platform.turns()
    left = await cancel(platform, tenant)
    assert left.row.state is RunState.CANCELLED
    assert [step.state for step in left.steps[3:]] == [StepState.CANCELLED] * 2


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["release_services", "withdraw_place"])
async def test_a_worker_killed_while_undoing_loses_nothing_and_does_nothing_twice(platform, step, moment):
    tenant = await platform.create()
    await platform.turns()
    await cancel(platform, tenant)
    if step == "withdraw_place":
        await platform.turns()
        await platform.answer_all(tenant.id)
    killed = await anyio.run_process(
        [sys.executable, str(DYING_WORKER), step, moment],
        env={**os.environ, **platform.database.environment()},
        check=False,
        stdout=None,
        stderr=None,
    )
    assert killed.returncode == -signal.SIGKILL
    await platform.turns()
    await platform.answer_all(tenant.id)
    await platform.turns()
    assert await kinds(platform, tenant) == ["tenant.provision", "tenant.release"]
    assert (await platform.runs(tenant.id))[0].row.state is RunState.CANCELLED
    assert await platform.audit(tenant.id) == [
        "tenant.create",
        "tenant.provision",
        "tenant.cancel_provisioning",
        "run.cancel",
        "tenant.withdraw_place",
    ]


async def test_a_run_is_tried_again_from_an_earlier_step(platform, make_ack):
    tenant = await platform.create()
    await platform.turns()
    await platform.answer_all(tenant.id)

    async def broken(_session, _claimed, _settings, _now):
        raise RuntimeError

    platform.settings = replace(platform.settings, retry=replace(platform.settings.retry, attempts=1))
    await platform.turn({**STEPS, StepName.ACTIVATE: broken})
    (run,) = await platform.runs(tenant.id)
    assert run.row.state is RunState.NEEDS_OPERATOR
    with pytest.raises(InvalidRequest, match="place, request_services, activate"):
        await retry(platform, tenant, StepName.RELEASE_SERVICES)

    again = await retry(platform, tenant, StepName.REQUEST_SERVICES)
    assert [step.state for step in again.steps] == [StepState.SUCCEEDED, StepState.PENDING, StepState.QUEUED]
    await platform.turns()
    # What the services said before is no answer to being asked again.
    requests = await platform.requests(tenant.id)
    assert len(requests) == 2
    assert (await platform.get(tenant.id)).status is TenantStatus.PROVISIONING
    await platform.answer(make_ack(requests[-1], "app"))
    await platform.turns()
    assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE

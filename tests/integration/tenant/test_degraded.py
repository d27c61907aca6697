"""What an operator sees of a tenant: what is under way, who has not answered, and why."""

from dataclasses import replace
from uuid import UUID

from tenant_service.domain.saga import AckOutcome, RunKind, RunState, ServiceState, StepState
from tenant_service.runs.repository import list_troubled_runs
from tenant_service.runs.schemas import RunOut
from tenantry import TenantStatus


async def troubled(platform, tenant):
    async with platform.transactions.begin() as session:
        return [RunOut.of(run) for run in await list_troubled_runs(session, tenant.id, 10)]


async def test_an_optional_service_is_asked_and_not_waited_for(platform, make_ack):
    platform.settings = replace(platform.settings, optional_services={RunKind.PROVISION: ("search",)})
    tenant = await platform.create()
    await platform.turns()
    (request,) = await platform.requests(tenant.id)
    assert request["services"] == ["app", "search"]
    await platform.answer(make_ack(request, "app"))
    await platform.turns()
    assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE
    (run,) = await troubled(platform, tenant)
    assert (run.state, run.degraded) == (RunState.SUCCEEDED, ["search"])
    await platform.answer(make_ack(request, "search"))
    assert await troubled(platform, tenant) == []


async def test_nobody_required_asks_the_optional_and_goes_on(platform):
    platform.settings = replace(
        platform.settings, services={RunKind.PROVISION: ()}, optional_services={RunKind.PROVISION: ("search",)}
    )
    tenant = await platform.create()
    await platform.turns()
    assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE
    assert [request["services"] for request in await platform.requests(tenant.id)] == [["search"]]


async def test_a_suspension_is_in_force_at_once_and_confirmed_by_every_service(platform, make_ack):
    tenant = await platform.activate()
    suspended = await platform.suspend(tenant.id)
    assert suspended.status is TenantStatus.SUSPENDED
    assert len(await platform.outbox("tenant.state.v1", str(tenant.id))) == 4
    await platform.turns()
    request = (await platform.requests(tenant.id))[-1]
    assert (request["kind"], request["services"]) == ("tenant.state_applied", ["app", "usage"])
    assert request["data"]["version"] == suspended.version

    await platform.answer(
        make_ack(request, "app"),
        make_ack(request, "usage", AckOutcome.FAILED, error_code="state-not-applied", detail="not known here"),
    )
    await platform.turns()
    (run,) = await troubled(platform, tenant)
    assert (run.kind, run.state, run.degraded) == (RunKind.CONFIRM_STATE, RunState.NEEDS_OPERATOR, ["usage"])
    services = {service.name: (service.state, service.error) for service in run.steps[0].services}
    assert services["app"] == (ServiceState.DONE, None)
    assert services["usage"][1].detail == "not known here"
    # Whatever becomes of the run, the tenant stays as it is.
    assert await platform.get(tenant.id) == suspended


async def test_an_answer_that_may_be_asked_for_again_is(platform, make_ack):
    tenant = await platform.activate()
    await platform.suspend(tenant.id)
    await platform.turns()
    request = (await platform.requests(tenant.id))[-1]
    refused = make_ack(request, "usage", AckOutcome.FAILED, error_code="state-not-applied")
    await platform.answer(make_ack(request, "app"), replace(refused, retryable=True))
    await platform.turns()
    (run,) = await troubled(platform, tenant)
    step = run.steps[0]
    assert (run.state, step.error.code) == (RunState.RUNNING, "state-not-applied")
    assert step.next_retry_at > platform.clock.now()
    platform.clock.advance(step.next_retry_at - platform.clock.now())
    await platform.turns()
    again = (await platform.requests(tenant.id))[-1]
    assert again["services"] == ["usage"]
    await platform.answer(make_ack(again, "usage"))
    await platform.turns()
    assert await troubled(platform, tenant) == []


async def test_the_operator_sees_it_and_the_tenant_does_not(api):
    tenant = await api.create()
    await api.activate(tenant["id"])
    answer = await api.http.post(f"/v1/tenants/{tenant['id']}/suspend", json={"reason": "billing"})
    assert answer.json()["status"] == "suspended"
    shown = (await api.http.get(f"/v1/tenants/{tenant['id']}")).json()
    assert [(run["kind"], run["state"]) for run in shown["runs"]] == [("state.confirm", "running")]
    assert shown["degraded_services"] == []
    key = await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json={"name": "a", "scopes": ["tenant:read"]})
    headers = {"Authorization": f"Bearer {key.json()['key']}"}
    mine = await api.http.get(f"/v1/tenants/{tenant['id']}", headers=headers)
    assert mine.status_code == 200, mine.text
    assert mine.json()["runs"] == []


async def test_trial_and_legal_hold_over_http(api):
    tenant = await api.create()
    await api.activate(tenant["id"])
    url = f"/v1/tenants/{tenant['id']}"
    held = await api.http.post(f"{url}/legal-hold", json={"on": True, "reason": "case 7"})
    assert held.json()["legal_hold"] is True
    trial = await api.http.post(f"{url}/trial", json={"ends_at": "2199-01-01T00:00:00Z"})
    assert trial.json()["trial_ends_at"] == "2199-01-01T00:00:00Z"
    assert (await api.http.post(f"{url}/trial", json={"ends_at": None})).json()["trial_ends_at"] is None
    for path, body in (
        ("trial", {"ends_at": "2001-01-01T00:00:00Z"}),
        ("trial", {}),
        ("suspend", {"reason": "trial"}),
        ("reactivate", {"reason": "trial"}),
        ("legal-hold", {"reason": "x"}),
    ):
        refused = await api.http.post(f"{url}/{path}", json=body)
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json"), path


async def test_a_run_is_retried_from_a_step_over_http(api):
    tenant = await api.create()
    url = f"/v1/tenants/{tenant['id']}/runs"
    run = (await api.http.get(url)).json()["items"][0]
    assert [step["name"] for step in run["steps"]] == ["place", "request_services", "activate"]
    assert (await api.http.post(f"{url}/{run['id']}/retry", json={"from_step": "place"})).status_code == 409
    for body in ({"from_step": "nowhere"}, {"step": "place"}):
        refused = await api.http.post(f"{url}/{run['id']}/retry", json=body)
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    async with api.runtime.transactions.begin() as session:
        stuck = await list_troubled_runs(session, UUID(tenant["id"]), 1)
        stuck[0].row.state, stuck[0].steps[0].state = RunState.NEEDS_OPERATOR, StepState.FAILED
    retried = await api.http.post(f"{url}/{run['id']}/retry", json={"from_step": "place"})
    assert (retried.status_code, retried.json()["state"]) == (200, "running")
    assert retried.json()["steps"][0]["state"] == "pending"

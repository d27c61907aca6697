"""Turns that carry many runs at once: as many statements as for one, and a bad run stops no other."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import event

from tenant_service.domain.saga import RUNS_UNDER_WAY, RunState, StepName, StepState
from tenant_service.runs.engine import take_turns
from tenant_service.runs.steps import STEPS, place
from tenantry import TenantStatus

# Claim (what has begun, how much is under way, the oldest and the newest), both savepoints, the steps' attempts; place:
# tenants, their rows, documents, story, trail; what follows and its attempts; answers, tenants, requests, outbox; the
# steps' states; the notification of the changes.
PLACE_AND_ASK = 26


@contextmanager
def counting(platform):
    """The statements of the saga, without the transaction control that the engine does not show."""
    engine = platform.transactions._databases.system.sync_engine
    statements = []

    def count_one(_connection, _cursor, statement, *_rest):
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", count_one)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", count_one)


@pytest.mark.parametrize("tenants", [1, RUNS_UNDER_WAY])
async def test_a_turn_needs_the_same_statements_for_any_number_of_tenants(platform, tenants):
    made = [await platform.create() for _ in range(tenants)]
    with counting(platform) as begun:
        turns = await platform.turn()
    assert len(turns) == 2 * tenants
    assert len(begun) <= PLACE_AND_ASK, begun
    for tenant in made:
        await platform.answer_all(tenant.id)
    with counting(platform) as ended:
        turns = await platform.turn()
    assert len(turns) == 2 * tenants
    assert len(ended) <= PLACE_AND_ASK, ended
    for tenant in made:
        assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE
        assert await platform.audit(tenant.id) == ["tenant.create", "tenant.provision", "tenant.activate"]
        assert [row["version"] for row in await platform.outbox("tenant.state.v1", str(tenant.id))] == [1, 2, 3]


async def test_a_bad_tenant_in_a_set_stops_no_other(platform):
    first, bad, last = [await platform.create() for _ in range(3)]

    async def poisoned(session, claimed, settings, now):
        outcomes = await place(session, claimed, settings, now)
        if any(one.run.tenant_id == bad.id for one in claimed):
            raise RuntimeError
        return outcomes

    await platform.turn({**STEPS, StepName.PLACE: poisoned})
    for tenant in (first, last):
        assert (await platform.get(tenant.id)).status is TenantStatus.PROVISIONING
        assert len(await platform.requests(tenant.id)) == 1
        assert await platform.audit(tenant.id) == ["tenant.create", "tenant.provision"]
        assert [row["version"] for row in await platform.outbox("tenant.state.v1", str(tenant.id))] == [1, 2]
    (run,) = await platform.runs(bad.id)
    assert (run.row.state, run.steps[0].state) == (RunState.RUNNING, StepState.PENDING)
    assert run.steps[0].error_code == "unexpected"
    assert (await platform.get(bad.id)).status is TenantStatus.REQUESTED
    assert await platform.audit(bad.id) == ["tenant.create"]


async def test_a_tenant_whose_state_forbids_the_step_fails_alone(platform):
    good, bad = [await platform.create() for _ in range(2)]
    await platform.turns()
    for tenant in (good, bad):
        await platform.answer_all(tenant.id)
    async with platform.database.connect() as connection:
        await connection.execute("UPDATE system.tenant SET status = 'cancelled' WHERE id = $1", bad.id)
    await platform.turn()
    assert (await platform.get(good.id)).status is TenantStatus.ACTIVE
    (run,) = await platform.runs(bad.id)
    assert (run.steps[2].state, run.steps[2].error_code) == (StepState.PENDING, "illegal-transition")


async def test_runs_of_different_kinds_share_a_turn(platform):
    suspended = await platform.activate()
    await platform.suspend(suspended.id)
    await platform.create()
    turns = await platform.turn()
    assert {(turn.run, turn.step) for turn in turns} == {
        ("provision", "place"),
        ("provision", "request_services"),
        ("state.confirm", "request_services"),
    }


async def test_newcomers_do_not_wait_behind_a_queue(platform):
    queued = [await platform.create() for _ in range(12)]
    newcomer = await platform.create()
    async with platform.transactions.begin() as session:
        turns = await take_turns(session, STEPS, platform.settings, platform.clock.now(), limit=4)
    begun = {each.id for each in (*queued, newcomer) if (await platform.get(each.id)).version > 1}
    assert len(turns) == 8
    assert begun == {queued[0].id, queued[1].id, queued[2].id, newcomer.id}
    # The others are not forgotten, and nobody is begun twice.
    await platform.turns()
    for tenant in (*queued, newcomer):
        assert await platform.audit(tenant.id) == ["tenant.create", "tenant.provision"]


async def test_runs_wait_in_the_database_while_services_are_busy(platform):
    platform.clock.advance(timedelta(hours=1))
    made = [await platform.create() for _ in range(RUNS_UNDER_WAY + 8)]
    await platform.turns()
    asked = [tenant for tenant in made if await platform.requests(tenant.id)]
    left = [tenant for tenant in made if tenant not in asked]
    assert len(asked) == RUNS_UNDER_WAY
    # A share of one is not enough for the newest to get a place.
    for tenant in asked[:3]:
        await platform.answer_all(tenant.id)
    await platform.turns()
    assert not any([await platform.requests(tenant.id) for tenant in left])
    newcomer = await platform.create()
    await platform.answer_all(asked[3].id)
    await platform.turns()
    begun = [tenant for tenant in (*left, newcomer) if await platform.requests(tenant.id)]
    assert begun == [*left[:3], newcomer]


async def test_a_silent_service_does_not_keep_the_queue_from_moving(platform):
    platform.clock.advance(timedelta(hours=2))
    silent = [await platform.create() for _ in range(RUNS_UNDER_WAY)]
    await platform.turns()
    other = await platform.create()
    await platform.turns()
    assert await platform.requests(other.id) == []
    platform.clock.advance(timedelta(seconds=1))
    await platform.turns()
    assert len(await platform.requests(other.id)) == 1
    assert all([await platform.requests(tenant.id) for tenant in silent])

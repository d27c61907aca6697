"""Trials in the tenant's own time: announced, expired, lengthened, converted."""

from datetime import timedelta

import anyio
import pytest

from tenant_service.audit import Actor
from tenant_service.clocks.service import advance_clock, create_clock
from tenant_service.tenants.service import present_of, set_trial
from tenant_service.tenants.trials import end_trials
from tenantry import InvalidRequest, TenantStatus

OPERATOR = Actor(subject="operator", kind="operator", credential_id="test")
DAY = timedelta(days=1)


async def trial(platform, tenant, ends_at):
    async with platform.transactions.begin() as session:
        return await set_trial(session, str(tenant.id), ends_at, "", actor=OPERATOR, now=platform.clock.now())


async def look(platform, *, limit=200):
    async with platform.transactions.begin() as session:
        return await end_trials(session, ending_within=3 * DAY, now=platform.clock.now(), limit=limit)


async def advance(platform, clock_id, to):
    """Move a test clock, and let the services say that they have followed."""
    async with platform.transactions.begin() as session:
        await advance_clock(session, clock_id, to, actor=OPERATOR, now=platform.clock.now())
    await platform.turns()
    await platform.answer_all(clock_id)
    await platform.turns()


async def story(platform, tenant):
    rows = await platform.outbox("tenant.events.v1", str(tenant.id))
    return [row["type"].removeprefix("tenant.").removesuffix(".v1") for row in rows][3:]


async def test_a_trial_is_announced_and_then_suspends_each_once(platform):
    tenant = await platform.activate()
    ends_at = platform.clock.now() + 10 * DAY
    assert (await trial(platform, tenant, ends_at)).trial_ends_at == ends_at
    await look(platform)
    assert await story(platform, tenant) == ["trial_started"]

    platform.clock.advance(7 * DAY)
    assert await look(platform) == 1
    assert await look(platform) == 0
    assert await story(platform, tenant) == ["trial_started", "trial_ending"]

    platform.clock.advance(3 * DAY)
    assert await look(platform) == 1
    assert await look(platform) == 0
    assert await story(platform, tenant) == ["trial_started", "trial_ending", "trial_expired", "suspended"]
    expired = await platform.get(tenant.id)
    assert (expired.status, expired.suspension_reasons) == (TenantStatus.SUSPENDED, ("trial",))
    assert (await platform.audit(tenant.id))[3:] == [
        "tenant.set_trial",
        "tenant.announce_trial_end",
        "tenant.expire_trial",
    ]


async def test_a_longer_trial_is_announced_again_and_a_conversion_never(platform):
    tenant = await platform.activate()
    await trial(platform, tenant, platform.clock.now() + DAY)
    await look(platform)
    platform.clock.advance(DAY)
    await look(platform)
    longer = await trial(platform, tenant, platform.clock.now() + 5 * DAY)
    assert longer.status is TenantStatus.ACTIVE
    platform.clock.advance(2 * DAY)
    await look(platform)
    assert await story(platform, tenant) == [
        "trial_started",
        "trial_ending",
        "trial_expired",
        "suspended",
        "trial_changed",
        "reactivated",
        "trial_ending",
    ]
    converted = await trial(platform, tenant, None)
    assert converted.trial_ends_at is None
    platform.clock.advance(30 * DAY)
    assert await look(platform) == 0
    assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE


async def test_a_trial_ends_in_the_time_of_the_tenants_test_clock(platform):
    async with platform.transactions.begin() as session:
        clock = await create_clock(session, platform.clock.now() - 300 * DAY, actor=OPERATOR, now=platform.clock.now())
    tenant = await platform.activate(test_clock_id=clock.id)
    other = await platform.activate()
    await trial(platform, tenant, clock.now + 5 * DAY)
    await trial(platform, other, platform.clock.now() + 5 * DAY)
    with pytest.raises(InvalidRequest, match="later than the tenant's present"):
        await trial(platform, tenant, clock.now)
    assert await look(platform) == 0
    await advance(platform, clock.id, clock.now + 3 * DAY)
    assert await look(platform) == 1
    assert await story(platform, tenant) == ["trial_started", "trial_ending"]
    await advance(platform, clock.id, clock.now + 5 * DAY)
    assert await look(platform) == 1
    assert (await platform.get(tenant.id)).suspension_reasons == ("trial",)
    assert (await platform.get(other.id)).status is TenantStatus.ACTIVE
    assert present_of((await platform.get(tenant.id)).clock, platform.clock.now()) == clock.now + 5 * DAY


async def test_two_workers_that_look_at_once_do_it_once(platform):
    tenants = [await platform.activate() for _ in range(6)]
    for tenant in tenants:
        await trial(platform, tenant, platform.clock.now() + DAY)
    platform.clock.advance(DAY)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(look, platform)
    await look(platform)
    for tenant in tenants:
        assert await story(platform, tenant) == ["trial_started", "trial_expired", "suspended"]


async def test_a_look_that_dies_has_done_nothing(platform):
    tenant = await platform.activate()
    await trial(platform, tenant, platform.clock.now() + DAY)
    platform.clock.advance(DAY)

    async def die():
        async with platform.transactions.begin() as session:
            await end_trials(session, ending_within=3 * DAY, now=platform.clock.now(), limit=200)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await die()
    assert (await platform.get(tenant.id)).status is TenantStatus.ACTIVE
    assert await look(platform) == 1
    assert await story(platform, tenant) == ["trial_started", "trial_expired", "suspended"]

"""Every transition is a document, a line of the story and an entry of the trail in one transaction, or nothing."""

from datetime import timedelta
from typing import Any

import pytest

from tenant_service.audit import Actor
from tenant_service.domain.lifecycle import Command, IllegalTransition, UnderLegalHold
from tenant_service.domain.suspension import SuspensionReason
from tenant_service.tenants.repository import lock_tenant, lock_tenants
from tenant_service.tenants.service import command_tenant, command_tenants
from tenantry import TenantStatus

OPERATOR = Actor(subject="operator", kind="operator", credential_id="test")
DAYS = timedelta(days=30)
C = Command

# A life that takes every command of a live tenant; the story is what each one adds to it.
LIFE: list[tuple[Command, dict[str, Any], list[str]]] = [
    (C.SET_READ_ONLY, {}, ["read_only_entered"]),
    (C.CLEAR_READ_ONLY, {}, ["read_only_left"]),
    (C.BEGIN_MOVE, {}, ["move_started"]),
    (C.END_MOVE, {}, ["move_ended"]),
    (C.SUSPEND, {"reason": SuspensionReason.BILLING}, ["suspended"]),
    (C.REACTIVATE, {"reason": SuspensionReason.BILLING}, ["reactivated"]),
    (C.SET_TRIAL, {"until": DAYS}, ["trial_started"]),
    (C.ANNOUNCE_TRIAL_END, {}, ["trial_ending"]),
    (C.CONVERT_TRIAL, {}, ["trial_converted"]),
    (C.SET_TRIAL, {"until": timedelta(0)}, ["trial_started"]),
    (C.EXPIRE_TRIAL, {}, ["trial_expired", "suspended"]),
    (C.SET_TRIAL, {"until": DAYS}, ["trial_changed", "reactivated"]),
    (C.SET_LEGAL_HOLD, {}, ["legal_hold_set"]),
    (C.CLEAR_LEGAL_HOLD, {}, ["legal_hold_released"]),
    (C.OFFBOARD, {"until": DAYS}, ["offboarding_started"]),
    (C.CANCEL_OFFBOARDING, {}, ["offboarding_cancelled"]),
    (C.OFFBOARD, {"until": DAYS}, ["offboarding_started"]),
    (C.PURGE, {}, ["purge_started"]),
    (C.PURGED, {}, ["purged"]),
]


async def command(platform, tenant, command, **order):
    if "until" in order:
        order["until"] += platform.clock.now()
    async with platform.transactions.begin() as session:
        row, clock = await lock_tenant(session, tenant.id)
        return await command_tenant(
            session, row, clock, command, actor=OPERATOR, now=platform.clock.now(), note="why", **order
        )


async def written(platform, tenant):
    story = await platform.outbox("tenant.events.v1", str(tenant.id))
    return (
        [row["version"] for row in await platform.outbox("tenant.state.v1", str(tenant.id))],
        [row["type"].removeprefix("tenant.").removesuffix(".v1") for row in story],
        await platform.audit(tenant.id),
    )


async def test_every_command_of_a_life_is_written_three_times(platform):
    assert {each for each, _, _ in LIFE} == set(Command) - {
        C.PROVISION,
        C.ACTIVATE,
        C.FAIL_PROVISIONING,
        C.CANCEL_PROVISIONING,
    }
    tenant = await platform.activate()
    versions, story, trail = await written(platform, tenant)
    for each, order, lines in LIFE:
        document = await command(platform, tenant, each, **order)
        versions.append(versions[-1] + 1)
        story += lines
        trail.append(f"tenant.{each}")
        assert await written(platform, tenant) == (versions, story, trail)
        assert document == await platform.get(tenant.id)
        published = (await platform.outbox("tenant.state.v1", str(tenant.id)))[-1]["payload"]
        assert (published["status"], published["version"]) == (document.status, document.version)
    assert (await platform.get(tenant.id)).status is TenantStatus.PURGED


async def test_a_command_that_changes_nothing_or_is_refused_writes_nothing(platform):
    tenant = await platform.activate()
    await command(platform, tenant, C.SET_LEGAL_HOLD)
    await command(platform, tenant, C.OFFBOARD, until=DAYS)
    before = await written(platform, tenant)
    await command(platform, tenant, C.SET_LEGAL_HOLD)
    for each, error in ((C.PURGE, UnderLegalHold), (C.BEGIN_MOVE, IllegalTransition)):
        with pytest.raises(error):
            await command(platform, tenant, each)
    assert await written(platform, tenant) == before


async def test_one_refusal_writes_for_nobody(platform):
    good, bad = await platform.activate(), await platform.create()
    before = await written(platform, good)

    async def suspend_both():
        async with platform.transactions.begin() as session:
            tenants = await lock_tenants(session, {good.id, bad.id})
            await command_tenants(
                session,
                list(tenants.values()),
                C.SUSPEND,
                reason=SuspensionReason.ABUSE,
                actor=OPERATOR,
                now=platform.clock.now(),
            )

    with pytest.raises(IllegalTransition):
        await suspend_both()
    assert await written(platform, good) == before
    assert (await platform.get(good.id)).status is TenantStatus.ACTIVE

"""The transition table: no sequence of commands reaches a state that must not be."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.lifecycle import (
    TRANSITIONS,
    Command,
    GraceOver,
    IllegalTransition,
    Lifecycle,
    Order,
    UnderLegalHold,
    apply,
)
from tenant_service.domain.story import story_of
from tenant_service.domain.suspension import REASONS_BY_HAND, SuspensionReason
from tenantry import Conflict, TenantStatus

START = datetime(2026, 1, 1, tzinfo=UTC)
LIVE = {TenantStatus.ACTIVE, TenantStatus.SUSPENDED}
LEAVING = {TenantStatus.OFFBOARDING, TenantStatus.PURGING, TenantStatus.PURGED}
FINAL = {TenantStatus.PURGED}
# What is allowed to happen to the status, whatever the command: drawn by hand, not derived from the table.
ALLOWED = {
    TenantStatus.REQUESTED: {TenantStatus.PROVISIONING, TenantStatus.PROVISIONING_FAILED, TenantStatus.CANCELLED},
    TenantStatus.PROVISIONING: {TenantStatus.ACTIVE, TenantStatus.PROVISIONING_FAILED, TenantStatus.CANCELLED},
    TenantStatus.PROVISIONING_FAILED: {TenantStatus.PROVISIONING, TenantStatus.CANCELLED},
    TenantStatus.ACTIVE: {TenantStatus.SUSPENDED, TenantStatus.OFFBOARDING},
    TenantStatus.SUSPENDED: {TenantStatus.ACTIVE, TenantStatus.OFFBOARDING},
    TenantStatus.OFFBOARDING: {TenantStatus.ACTIVE, TenantStatus.SUSPENDED, TenantStatus.PURGING},
    TenantStatus.PURGING: {TenantStatus.PURGED},
    TenantStatus.PURGED: set(),
    TenantStatus.CANCELLED: {TenantStatus.PURGING},
}

moments = st.integers(0, 5).map(lambda days: START + timedelta(days=days))
PLAIN = sorted(
    set(Command)
    - {
        Command.SUSPEND,
        Command.REACTIVATE,
        Command.SET_TRIAL,
        Command.OFFBOARD,
        Command.EXPIRE_TRIAL,
        Command.CANCEL_OFFBOARDING,
    }
)
orders = st.one_of(
    st.builds(Order, st.sampled_from(PLAIN)),
    st.builds(
        Order,
        st.sampled_from([Command.SUSPEND, Command.REACTIVATE]),
        reason=st.sampled_from(sorted(REASONS_BY_HAND)),
    ),
    st.builds(Order, st.sampled_from([Command.SET_TRIAL, Command.OFFBOARD]), until=moments),
    st.builds(Order, st.sampled_from([Command.EXPIRE_TRIAL, Command.CANCEL_OFFBOARDING]), now=moments),
)
# Random walks rarely get through the provisioning, so most begin behind it.
beginnings = st.sampled_from([Lifecycle(), Lifecycle(TenantStatus.ACTIVE), Lifecycle(TenantStatus.ACTIVE)])
walks = st.lists(orders, max_size=40)


def run(beginning: Lifecycle, walk: list[Order]) -> list[Lifecycle]:
    states = [beginning]
    for order in walk:
        try:
            states.append(apply(states[-1], order))
        except Conflict:
            states.append(states[-1])
    return states


def live(*reasons: SuspensionReason, **more: Any) -> Lifecycle:
    status = TenantStatus.SUSPENDED if reasons else TenantStatus.ACTIVE
    return Lifecycle(status, frozenset(reasons), **more)


@given(beginnings, walks)
def test_every_walk_follows_the_drawn_life(beginning, walk):
    for before, after in pairwise(run(beginning, walk)):
        assert after.status is before.status or after.status in ALLOWED[before.status]


@given(beginnings, walks)
def test_a_live_tenant_is_suspended_exactly_while_it_has_reasons(beginning, walk):
    for state in run(beginning, walk):
        assert state.status not in LIVE or (state.status is TenantStatus.SUSPENDED) == bool(state.reasons)


@given(beginnings, walks)
def test_what_is_over_never_changes(beginning, walk):
    states = run(beginning, walk)
    for before, after in pairwise(states):
        if before.status in FINAL:
            assert after == before


@given(beginnings, walks)
def test_a_tenant_under_legal_hold_is_never_purged(beginning, walk):
    for before, after in pairwise(run(beginning, walk)):
        if before.legal_hold:
            assert after.status is not TenantStatus.PURGING
        assert not (after.legal_hold and after.status in {TenantStatus.PURGING, TenantStatus.PURGED})


@given(beginnings, walks)
def test_there_is_a_grace_exactly_while_a_tenant_that_has_lived_leaves(beginning, walk):
    states = run(beginning, walk)
    never_lived = any(state.status is TenantStatus.CANCELLED for state in states)
    for state in states:
        assert (state.grace_ends_at is not None) == (state.status in LEAVING and not never_lived)


@given(beginnings, walks)
def test_only_a_trial_that_ended_suspends_for_the_trial(beginning, walk):
    for order, (before, after) in zip(walk, pairwise(run(beginning, walk)), strict=True):
        if SuspensionReason.TRIAL in after.reasons - before.reasons:
            assert order.command is Command.EXPIRE_TRIAL
            assert before.trial_ends_at <= order.now
        assert SuspensionReason.TRIAL not in after.reasons or after.trial_ends_at is not None


@given(beginnings, walks)
def test_a_moving_tenant_does_not_leave(beginning, walk):
    for state in run(beginning, walk):
        assert not state.moving or state.status in LIVE


@given(beginnings, walks, orders)
def test_every_command_may_be_repeated(beginning, walk, order):
    state = run(beginning, walk)[-1]
    try:
        once = apply(state, order)
    except Conflict:
        return
    if (once.status, order.command) in TRANSITIONS:
        assert apply(once, order) == once


@given(beginnings, walks, orders)
def test_a_story_is_told_exactly_when_something_changed(beginning, walk, order):
    before = run(beginning, walk)[-1]
    try:
        after = apply(before, order)
    except Conflict:
        return
    lines = list(story_of(order, before, after))
    assert bool(lines) == (after != before)
    told = {(line.event, line.data["reason"]) for line in lines if line.event in {"suspended", "reactivated"}}
    assert told == {("suspended", reason) for reason in after.reasons - before.reasons} | {
        ("reactivated", reason) for reason in before.reasons - after.reasons
    }


@given(st.sets(st.sampled_from(SuspensionReason)), st.booleans(), moments)
def test_an_offboarding_that_is_taken_back_leaves_no_trace(reasons, read_only, trial_ends_at):
    before = live(*reasons, read_only=read_only, trial_ends_at=trial_ends_at)
    left = apply(before, Order(Command.OFFBOARD, until=START + timedelta(days=9)))
    assert left.status is TenantStatus.OFFBOARDING
    assert apply(left, Order(Command.CANCEL_OFFBOARDING, now=START)) == before


def test_the_grace_ends_at_its_moment():
    ends_at = START + timedelta(days=30)
    left = apply(live(), Order(Command.OFFBOARD, until=ends_at))
    apply(left, Order(Command.CANCEL_OFFBOARDING, now=ends_at - timedelta(microseconds=1)))
    with pytest.raises(GraceOver):
        apply(left, Order(Command.CANCEL_OFFBOARDING, now=ends_at))


def test_a_bill_that_is_paid_while_leaving_does_not_suspend_on_the_way_back():
    left = apply(live(SuspensionReason.BILLING), Order(Command.OFFBOARD, until=START))
    paid = apply(left, Order(Command.REACTIVATE, reason=SuspensionReason.BILLING))
    assert paid.status is TenantStatus.OFFBOARDING
    back = apply(paid, Order(Command.CANCEL_OFFBOARDING, now=START - timedelta(days=1)))
    assert back == live()


def test_a_legal_hold_forbids_the_purge_and_nothing_else():
    held = apply(live(), Order(Command.SET_LEGAL_HOLD))
    left = apply(held, Order(Command.OFFBOARD, until=START))
    with pytest.raises(UnderLegalHold) as refused:
        apply(left, Order(Command.PURGE))
    assert refused.value.status == 409
    released = apply(left, Order(Command.CLEAR_LEGAL_HOLD))
    purging = apply(released, Order(Command.PURGE))
    with pytest.raises(IllegalTransition):
        apply(purging, Order(Command.SET_LEGAL_HOLD))
    assert apply(purging, Order(Command.PURGED)).status is TenantStatus.PURGED


@given(st.sets(st.sampled_from(SuspensionReason), min_size=1), st.sampled_from(sorted(REASONS_BY_HAND)))
def test_lifting_one_reason_leaves_the_others(reasons, lifted):
    state = live(*reasons, trial_ends_at=START)
    assert apply(state, Order(Command.REACTIVATE, reason=lifted)).reasons == reasons - {lifted}


def test_a_trial_that_is_changed_or_converted_suspends_no_longer():
    expired = apply(live(trial_ends_at=START), Order(Command.EXPIRE_TRIAL, now=START))
    assert (expired.status, expired.reasons) == (TenantStatus.SUSPENDED, frozenset({SuspensionReason.TRIAL}))
    changed = apply(expired, Order(Command.SET_TRIAL, until=START + timedelta(days=14)))
    assert (changed.status, changed.trial_end_announced) == (TenantStatus.ACTIVE, False)
    assert apply(expired, Order(Command.CONVERT_TRIAL)) == live()


def test_a_trial_has_not_ended_before_its_end():
    state = live(trial_ends_at=START)
    assert apply(state, Order(Command.EXPIRE_TRIAL, now=START - timedelta(microseconds=1))) == state


def test_a_command_that_the_state_does_not_know_is_a_conflict():
    with pytest.raises(IllegalTransition, match="requested") as refused:
        apply(Lifecycle(), Order(Command.SUSPEND, reason=SuspensionReason.ABUSE))
    assert refused.value.status == 409


@pytest.mark.parametrize(
    "order",
    [
        Order(Command.PROVISION, reason=SuspensionReason.ABUSE),
        Order(Command.SUSPEND),
        Order(Command.OFFBOARD),
        Order(Command.PURGE, until=START),
        Order(Command.EXPIRE_TRIAL),
        Order(Command.SUSPEND, reason=SuspensionReason.TRIAL),
    ],
)
def test_an_order_has_what_its_command_needs_and_no_more(order):
    with pytest.raises(ValueError, match=r"do not go together|commands of its own"):
        apply(Lifecycle(TenantStatus.ACTIVE), order)

"""The transition table: no sequence of commands reaches a state that must not be."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.lifecycle import TRANSITIONS, Command, IllegalTransition, Lifecycle, apply
from tenant_service.domain.suspension import SuspensionReason
from tenantry import TenantStatus

REASONED = {Command.SUSPEND, Command.REACTIVATE}

commands = st.one_of(
    st.tuples(st.sampled_from(sorted(set(Command) - REASONED)), st.none()),
    st.tuples(st.sampled_from(sorted(REASONED)), st.sampled_from(SuspensionReason)),
)


def run(sequence: list[tuple[Command, SuspensionReason | None]]) -> list[Lifecycle]:
    states = [Lifecycle()]
    for command, reason in sequence:
        try:
            states.append(apply(states[-1], command, reason))
        except IllegalTransition:
            states.append(states[-1])
    return states


@given(st.lists(commands, max_size=40))
def test_a_tenant_is_suspended_exactly_while_it_has_reasons(sequence):
    for state in run(sequence):
        assert (state.status is TenantStatus.SUSPENDED) == bool(state.reasons)


@given(st.lists(commands, max_size=40))
def test_a_cancelled_tenant_stays_cancelled(sequence):
    states = [state.status for state in run(sequence)]
    if TenantStatus.CANCELLED in states:
        assert set(states[states.index(TenantStatus.CANCELLED) :]) == {TenantStatus.CANCELLED}


@given(st.lists(commands, max_size=40))
def test_a_live_tenant_never_goes_back_to_provisioning(sequence):
    live = {TenantStatus.ACTIVE, TenantStatus.SUSPENDED}
    states = [state.status for state in run(sequence)]
    first = next((index for index, status in enumerate(states) if status in live), len(states))
    assert set(states[first:]) <= live


@given(st.lists(commands, max_size=40))
def test_only_a_provisioned_tenant_becomes_active(sequence):
    states = [state.status for state in run(sequence)]
    for before, after in pairwise(states):
        if after is TenantStatus.ACTIVE and before is not after:
            assert before in {TenantStatus.PROVISIONING, TenantStatus.SUSPENDED}


@given(st.lists(commands, max_size=40), commands)
def test_every_command_may_be_repeated(sequence, last):
    state = run(sequence)[-1]
    command, reason = last
    try:
        once = apply(state, command, reason)
    except IllegalTransition:
        return
    if (once.status, command) in TRANSITIONS:
        assert apply(once, command, reason) == once


@given(st.sets(st.sampled_from(SuspensionReason), min_size=1), st.sampled_from(SuspensionReason))
def test_lifting_one_reason_leaves_the_others(reasons, lifted):
    state = Lifecycle(TenantStatus.SUSPENDED, frozenset(reasons))
    assert apply(state, Command.REACTIVATE, lifted).reasons == reasons - {lifted}


@given(st.lists(commands, max_size=20))
def test_read_only_is_a_flag_beside_the_state(sequence):
    for state in run(sequence):
        if (state.status, Command.SET_READ_ONLY) in TRANSITIONS:
            marked = apply(state, Command.SET_READ_ONLY)
            assert (marked.status, marked.reasons, marked.read_only) == (state.status, state.reasons, True)


def test_a_command_that_the_state_does_not_know_is_a_conflict():
    with pytest.raises(IllegalTransition, match="requested") as refused:
        apply(Lifecycle(), Command.SUSPEND, SuspensionReason.ABUSE)
    assert refused.value.status == 409


def test_a_reason_belongs_to_suspension_only():
    with pytest.raises(ValueError, match="do not go together"):
        apply(Lifecycle(), Command.PROVISION, SuspensionReason.ABUSE)
    with pytest.raises(ValueError, match="do not go together"):
        apply(Lifecycle(TenantStatus.ACTIVE), Command.SUSPEND)

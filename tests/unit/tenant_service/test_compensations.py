"""What undoes a run, and where services are with what they were asked."""

from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.saga import (
    COMPENSATIONS,
    CONSEQUENCES,
    PLANS,
    AckOutcome,
    Answer,
    Progress,
    RunKind,
    ServiceState,
    StepName,
    StepState,
    compensations,
    fan_in,
    service_states,
)

answers = st.lists(
    st.builds(
        Answer,
        service=st.sampled_from(["app", "billing", "usage"]),
        attempt=st.integers(1, 3),
        outcome=st.sampled_from([None, *AckOutcome]),
        error_code=st.sampled_from([None, "disk"]),
        retryable=st.booleans(),
    )
)


@st.composite
def runs(draw):
    """A run that has come to one of its steps."""
    kind = draw(st.sampled_from(RunKind))
    come_to = draw(st.integers(0, len(PLANS[kind]) - 1))
    return kind, [
        Progress(position, name, StepState.SUCCEEDED, draw(st.integers(1, 3)))
        if position < come_to
        else Progress(position, name, StepState.PENDING, draw(st.integers(0, 2)) if position == come_to else 0)
        for position, name in enumerate(PLANS[kind])
    ]


@given(runs())
def test_what_has_begun_is_undone_the_last_one_first_and_nothing_else(run):
    kind, steps = run
    undone = [position for _, position in compensations(kind, steps)]
    assert undone == sorted(undone, reverse=True)
    assert set(undone) == {step.position for step in steps if step.attempt and (kind, step.name) in COMPENSATIONS}


def test_every_kind_of_run_has_a_plan_and_consequences():
    assert set(PLANS) == set(CONSEQUENCES) == set(RunKind)
    for kind, name in COMPENSATIONS:
        assert name in PLANS[kind]


def test_a_refusal_for_good_outweighs_one_that_may_pass():
    given_answers = [
        Answer("app", 1, AckOutcome.FAILED, "not-yet", retryable=True),
        Answer("billing", 1, AckOutcome.FAILED, "disk"),
    ]
    failure = fan_in(["app", "billing"], given_answers, 1).failure
    assert failure is not None
    assert (failure.code, failure.permanent) == ("disk", True)
    failure = fan_in(["app", "billing"], given_answers[:1], 1).failure
    assert failure is not None
    assert (failure.code, failure.permanent) == ("not-yet", False)


@given(answers, st.sampled_from(StepState), st.integers(1, 3))
def test_every_service_that_was_asked_has_a_state(given_answers, state, attempt):
    step = Progress(1, StepName.REQUEST_SERVICES, state, attempt)
    states = service_states(step, given_answers)
    assert states.keys() == {answer.service for answer in given_answers}
    done = {answer.service for answer in given_answers if answer.outcome is AckOutcome.DONE}
    assert {service for service, each in states.items() if each is ServiceState.DONE} == done
    if state is not StepState.WAITING:
        assert ServiceState.WAITING not in states.values()


def test_a_service_is_degraded_when_it_refuses_or_is_silent_or_the_run_goes_on_without_it():
    waiting = Progress(1, StepName.REQUEST_SERVICES, StepState.WAITING, 2)
    over = Progress(1, StepName.REQUEST_SERVICES, StepState.SUCCEEDED, 2)
    assert service_states(waiting, [Answer("app", 2)]) == {"app": ServiceState.WAITING}
    assert service_states(waiting, [Answer("app", 1), Answer("app", 2)]) == {"app": ServiceState.DEGRADED}
    assert service_states(waiting, [Answer("app", 2, AckOutcome.FAILED)]) == {"app": ServiceState.DEGRADED}
    assert service_states(over, [Answer("app", 2)]) == {"app": ServiceState.DEGRADED}

from billing_service.domain.runs import OPEN_STATES, TRANSITIONS, RunState, may_follow


def test_every_state_is_reachable_and_every_open_one_leads_to_an_end() -> None:
    reachable = {RunState.REQUESTED}
    frontier = [RunState.REQUESTED]
    while frontier:
        for following in TRANSITIONS[frontier.pop()] - reachable:
            reachable.add(following)
            frontier.append(following)
    assert reachable == set(RunState)
    assert set(RunState) - set(OPEN_STATES) == {RunState.DONE, RunState.FAILED}


def test_a_run_that_has_drafts_can_only_go_forward() -> None:
    for state in (RunState.RATING, RunState.NUMBERING, RunState.FINALIZING):
        assert not may_follow(state, RunState.FAILED)

"""The states of an invoice run, and the only ways from one to the next.

requested   waits for a worker, which notes the periods that are due (the plan of the run)
cutting     a cut of the usage stream has been asked for; waits until the rollup copy has read it in all partitions
rating      drafts are computed from the copy as it was at the cut, chunk by chunk
numbering   the drafts get their sellers' next numbers in one short step
finalizing  numbered drafts become final invoices, chunk by chunk
done        nothing is left
failed      given up with a reason; nothing of it is half done, a new run takes the same periods
"""

from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    REQUESTED = "requested"
    CUTTING = "cutting"
    RATING = "rating"
    NUMBERING = "numbering"
    FINALIZING = "finalizing"
    DONE = "done"
    FAILED = "failed"


class ItemState(StrEnum):
    """What became of one due period inside a run."""

    PENDING = "pending"
    DRAFTED = "drafted"
    INVOICED = "invoiced"
    SKIPPED = "skipped"
    ALREADY_BILLED = "already_billed"
    RATED = "rated"
    FAILED = "failed"


TRANSITIONS: Final[dict[RunState, frozenset[RunState]]] = {
    RunState.REQUESTED: frozenset({RunState.CUTTING, RunState.DONE, RunState.FAILED}),
    RunState.CUTTING: frozenset({RunState.RATING, RunState.FAILED}),
    RunState.RATING: frozenset({RunState.NUMBERING, RunState.DONE}),
    RunState.NUMBERING: frozenset({RunState.FINALIZING}),
    RunState.FINALIZING: frozenset({RunState.DONE}),
    RunState.DONE: frozenset(),
    RunState.FAILED: frozenset(),
}

OPEN_STATES: Final = tuple(state for state, following in TRANSITIONS.items() if following)


def may_follow(current: RunState, following: RunState) -> bool:
    return following in TRANSITIONS[current]

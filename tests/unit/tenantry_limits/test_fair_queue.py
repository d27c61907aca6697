"""Who is next, in simulated time."""

import heapq
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenantry.limits import FairQueue, Share

LOUD, QUIET, THIRD = UUID(int=1), UUID(int=2), UUID(int=3)
EVERYBODY = [LOUD, QUIET, THIRD]
ONE = Share()


def queue_of(capacity, *, max_waiting=1_000, reserve=0):
    return FairQueue(capacity, max_waiting=max_waiting, reserve=reserve)


def test_one_tenant_gets_everything_but_the_reserve_while_nobody_else_asks():
    queue: FairQueue[object] = FairQueue(16, max_waiting=10)
    assert [queue.take(LOUD, ONE) for _ in range(16)] == [True] * 14 + [False] * 2


def test_a_tenant_that_holds_none_is_served_at_once_from_the_reserve():
    queue: FairQueue[object] = FairQueue(16, max_waiting=10)
    while queue.take(LOUD, ONE):
        pass
    assert queue.take(QUIET, ONE)
    assert not queue.take(QUIET, ONE)
    assert queue.take(THIRD, ONE)


def test_the_next_place_goes_to_who_holds_the_least():
    queue = queue_of(4)
    for _ in range(4):
        assert queue.take(LOUD, ONE)
    for n in range(10):
        assert queue.enqueue(LOUD, ONE, ("loud", n)) is None
    for n in range(3):
        assert queue.enqueue(QUIET, ONE, ("quiet", n)) is None
    granted = []
    for _ in range(4):
        queue.release(LOUD)
        granted.append(queue.grant())
    # Two and two; ties by turn.
    assert sorted(granted) == [("loud", 0), ("quiet", 0), ("quiet", 1), ("quiet", 2)] or sorted(granted) == [
        ("loud", 0),
        ("loud", 1),
        ("quiet", 0),
        ("quiet", 1),
    ]
    assert granted[0] == ("quiet", 0)


def test_weights_share_the_places():
    queue = queue_of(12)
    heavy, light = Share(weight=2), Share(weight=1)
    for _ in range(12):
        assert queue.take(THIRD, ONE)
    for n in range(50):
        queue.enqueue(LOUD, heavy, ("heavy", n))
        queue.enqueue(QUIET, light, ("light", n))
    for _ in range(12):
        queue.release(THIRD)
        assert queue.grant() is not None
    assert (queue.holds(LOUD), queue.holds(QUIET)) == (8, 4)


def test_a_cap_holds_whatever_is_free():
    queue, capped = queue_of(10), Share(cap=2)
    assert [queue.take(LOUD, capped) for _ in range(3)] == [True, True, False]
    assert queue.is_capped(LOUD, capped)
    queue.enqueue(LOUD, capped, "third")
    assert queue.grant() is None
    queue.release(LOUD)
    assert queue.grant() == "third"


def test_a_cap_that_is_raised_holds_from_the_next_request_on():
    queue = queue_of(10)
    assert queue.take(LOUD, Share(cap=1))
    assert not queue.take(LOUD, Share(cap=1))
    assert queue.take(LOUD, Share(cap=2))


def test_a_stream_gives_its_place_to_others_and_stays_within_its_cap():
    queue, capped = queue_of(1), Share(cap=1)
    assert queue.take(LOUD, capped)
    queue.turn_into_stream(LOUD)
    assert not queue.take(LOUD, capped)
    assert queue.take(QUIET, capped)
    queue.release(LOUD, stream=True)
    queue.release(QUIET)
    assert (queue.held, len(queue)) == (0, 0)


def test_the_newest_of_the_loudest_is_shed():
    queue = queue_of(1, max_waiting=3)
    assert queue.take(THIRD, ONE)
    for n in range(3):
        assert queue.enqueue(LOUD, ONE, ("loud", n)) is None
    assert queue.enqueue(QUIET, ONE, "quiet") == ("loud", 2)
    assert queue.enqueue(LOUD, ONE, "one more") == "one more"
    queue.release(THIRD)
    assert queue.grant() == ("loud", 0) or queue.waits(QUIET) == 0


def test_who_comes_back_has_not_saved_turns_nor_lost_them():
    queue = queue_of(1)
    queue.take(THIRD, ONE)
    for n in range(6):
        queue.enqueue(LOUD, ONE, ("loud", n))
    order = []

    def serve():
        item = queue.grant()
        order.append(item[0])
        queue.release(LOUD if item[0] == "loud" else QUIET)

    queue.release(THIRD)
    for _ in range(3):
        serve()
    for n in range(3):
        queue.enqueue(QUIET, ONE, ("quiet", n))
    for _ in range(6):
        serve()
    assert order[:3] == ["loud"] * 3
    # From here on one and one, not first all three that were "saved".
    assert sorted(order[3:5]) == sorted(order[5:7]) == ["loud", "quiet"]


def test_slow_work_counts_for_as_long_as_it_holds_its_place():
    """A tenant of few and slow jobs has had fewer turns, and holds more: the one that holds none is next."""
    queue = queue_of(3)
    assert queue.take(LOUD, ONE)
    assert queue.take(LOUD, ONE)
    for _ in range(100):
        assert queue.take(QUIET, ONE)
        queue.release(QUIET)
    assert queue.take(QUIET, ONE)
    queue.enqueue(LOUD, ONE, "slow")
    queue.enqueue(QUIET, ONE, "fast")
    queue.release(QUIET)
    assert queue.grant() == "fast"


def test_a_turn_is_remembered_after_the_tenant_has_left():
    queue = queue_of(2)
    assert queue.take(THIRD, ONE)
    for _ in range(10):
        assert queue.take(LOUD, ONE)
        queue.release(LOUD)
    assert queue.take(THIRD, ONE)
    queue.enqueue(LOUD, ONE, "again")
    queue.enqueue(QUIET, ONE, "first")
    queue.release(THIRD)
    assert queue.grant() == "first"


def test_tenants_that_have_left_are_forgotten():
    queue = queue_of(4)
    queue.take(THIRD, ONE)  # never idle
    for n in range(10_000):
        tenant = UUID(int=100 + n)
        assert queue.take(tenant, ONE)
        queue.release(tenant)
        queue.release(THIRD)
        queue.take(THIRD, ONE)
    assert len(queue) <= 2_050


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 8),
    st.lists(st.integers(1, 20), min_size=20, max_size=200),
    st.integers(1, 20),
    st.integers(2, 6),
)
def test_a_quiet_tenant_is_next_but_for_tenants_whose_turn_came_before(capacity, loud_jobs, service, tenants):
    """Loud tenants have jobs of any length queued. A quiet one waits for a job or two of each, not for all."""
    queue = queue_of(capacity, max_waiting=100_000)
    running: list[tuple[int, int, UUID]] = []
    for n, length in enumerate(loud_jobs):
        tenant = UUID(int=10 + n % tenants)
        if queue.take(tenant, ONE):
            heapq.heappush(running, (length, n, tenant))
        else:
            queue.enqueue(tenant, ONE, (tenant, length))
    ahead = None
    for step in range(1_000, 1_300):
        if not running:
            break
        now, _, tenant = heapq.heappop(running)
        queue.release(tenant)
        if ahead is None and not queue.holds(QUIET):
            queue.enqueue(QUIET, ONE, (QUIET, service))
            ahead = 0
        item = queue.grant()
        if item is None:
            continue
        heapq.heappush(running, (now + item[1], step, item[0]))
        if item[0] == QUIET:
            ahead = None
        elif ahead is not None:
            ahead += 1
            assert ahead <= 2 * tenants
    assert ahead is None or not running


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([0.5, 1, 2, 4]), min_size=2, max_size=5), st.integers(1, 6))
def test_over_time_places_are_given_by_weight(weights, capacity):
    """Everybody always wants more, and every job takes one step: what was served is by weight, within a few jobs."""
    queue = queue_of(capacity, max_waiting=10_000)
    tenants = {UUID(int=n + 1): Share(weight=weight) for n, weight in enumerate(weights)}
    served = dict.fromkeys(tenants, 0)
    blocker = UUID(int=99)
    for _ in range(capacity):
        queue.take(blocker, ONE)
    for n in range(400):
        for tenant, share in tenants.items():
            queue.enqueue(tenant, share, (tenant, n))
    running = [blocker] * capacity
    total = 0
    while total < 300:
        for tenant in running:
            queue.release(tenant)
        running = []
        while (item := queue.grant()) is not None:
            running.append(item[0])
            served[item[0]] += 1
            total += 1
    if capacity == 1:
        # One place: pure start-time fair queueing, whose unfairness is below one job of each.
        unit = total / sum(weights)
        for tenant, share in tenants.items():
            assert abs(served[tenant] - unit * share.weight) <= 1 + share.weight
    else:
        # Several: nobody goes without, and nobody has less than others of no more weight by more than a round.
        assert min(served.values()) > 0


class Books(RuleBasedStateMachine):
    """Whatever happens in whatever order: nobody is over a cap, no place is lost, and no free place is kept back."""

    def __init__(self):
        super().__init__()
        self.capacity, self.reserve = 5, 1
        self.queue = queue_of(self.capacity, max_waiting=6, reserve=self.reserve)
        self.held = []
        self.streams = []
        self.waiting = {}
        self.shares = {}
        self.count = 0

    tenants = st.sampled_from(EVERYBODY)
    shares_of = st.builds(Share, weight=st.sampled_from([0.5, 1.0, 3.0]), cap=st.none() | st.integers(1, 3))

    def settle(self):
        while (item := self.queue.grant()) is not None:
            self.held.append(self.waiting.pop(item))

    @rule(tenant=tenants, share=shares_of)
    def ask(self, tenant, share):
        self.shares[tenant] = share
        if self.queue.take(tenant, share):
            self.held.append(tenant)
            assert share.cap is None or self.queue.holds(tenant) <= share.cap
            return
        self.count += 1
        self.waiting[self.count] = tenant
        shed = self.queue.enqueue(tenant, share, self.count)
        if shed is not None:
            del self.waiting[shed]
        self.settle()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data):
        tenant = data.draw(st.sampled_from(self.held))
        self.held.remove(tenant)
        self.queue.release(tenant)
        self.settle()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def stream(self, data):
        tenant = data.draw(st.sampled_from(self.held))
        self.held.remove(tenant)
        self.streams.append(tenant)
        self.queue.turn_into_stream(tenant)
        self.settle()

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def end_stream(self, data):
        tenant = data.draw(st.sampled_from(self.streams))
        self.streams.remove(tenant)
        self.queue.release(tenant, stream=True)
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data):
        item = data.draw(st.sampled_from(sorted(self.waiting)))
        self.queue.withdraw(self.waiting.pop(item), item)
        self.settle()

    @invariant()
    def books_agree(self):
        assert self.queue.held == len(self.held) <= self.capacity
        assert self.queue.waiting == len(self.waiting) <= 6
        for tenant in EVERYBODY:
            assert self.queue.holds(tenant) == self.held.count(tenant) + self.streams.count(tenant)
            assert self.queue.waits(tenant) == list(self.waiting.values()).count(tenant)

    @invariant()
    def nobody_waits_for_a_place_that_is_free_for_it(self):
        for tenant in set(self.waiting.values()):
            capped = self.queue.is_capped(tenant, self.shares[tenant])
            room = self.capacity - (self.reserve if self.held.count(tenant) else 0)
            assert capped or len(self.held) >= room


Books.TestCase.settings = settings(deadline=None)
TestBooks = pytest.mark.filterwarnings("default")(Books.TestCase)


def test_a_paced_tenant_begins_with_one_place_and_doubles():
    queue: FairQueue[int] = FairQueue(100, max_waiting=100, reserve=0, paced=True)
    assert queue.take(LOUD, ONE)
    assert not queue.take(LOUD, ONE)
    assert queue.take(QUIET, ONE)
    for number in range(40):
        queue.enqueue(LOUD, ONE, number)
    begun = []
    for _ in range(3):
        assert queue.grant() is None
        queue.set_pace(faster=True)
        begun.append(len(granted_by(queue)))
    assert begun == [1, 2, 4]


def test_a_slower_pace_takes_nothing_away_and_leaves_one():
    queue: FairQueue[int] = FairQueue(100, max_waiting=100, reserve=0, paced=True)
    assert queue.take(LOUD, ONE)
    for number in range(10):
        queue.enqueue(LOUD, ONE, number)
    queue.set_pace(faster=True)
    queue.set_pace(faster=True)
    assert len(granted_by(queue)) == 3
    for _ in range(5):
        queue.set_pace(faster=False)
    assert queue.holds(LOUD) == 4
    for _ in range(3):
        queue.release(LOUD)
        assert queue.grant() is None
    queue.release(LOUD)
    assert granted_by(queue) == [3]


def test_a_paced_tenant_begins_with_its_weight():
    queue: FairQueue[int] = FairQueue(100, max_waiting=100, reserve=0, paced=True)
    heavy, light = Share(weight=4), Share(weight=0.1)
    assert [queue.take(LOUD, heavy) for _ in range(5)] == [True] * 4 + [False]
    assert [queue.take(QUIET, light) for _ in range(2)] == [True, False]


def granted_by(queue):
    granted = []
    while (item := queue.grant()) is not None:
        granted.append(item)
    return granted

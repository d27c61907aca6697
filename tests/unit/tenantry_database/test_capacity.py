"""The book-keeping of tenants' engines under any order of events: its caps, and that everybody is served."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.database._capacity import Capacity

URLS = "abcdef"
STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "release", "close", "withdraw"]), st.integers(0, 1000)), max_size=60
)


class Run:
    def __init__(self, engines, connections, pool_size):
        self.limits = engines, connections, pool_size
        self.capacity = Capacity(
            str, engines=engines, connections=connections, pool_size=pool_size, idle=0, monotonic=lambda: 0.0
        )
        self.waiting, self.leased, self.closing = [], [], []

    def settle(self):
        self.closing += self.capacity.settle()
        for claim in [claim for claim in self.waiting if claim.entry is not None]:
            self.waiting.remove(claim)
            self.leased.append(claim)
        engines, connections, pool_size = self.limits
        assert self.capacity.open_engines <= engines
        assert self.capacity.connections <= connections
        assert all(entry.leases == 0 for entry in self.closing), "an engine in use is never closed"
        assert all(entry.connections <= pool_size for entry in self.capacity._entries.values())
        held: dict[Any, list[Any]] = {}
        for claim in self.leased:
            held.setdefault(claim.entry, []).append(claim)
        assert all(entry.leases == len(claims) for entry, claims in held.items())

    def step(self, kind, number):
        if kind == "claim":
            self.waiting.append(self.capacity.claim(URLS[number % len(URLS)], lambda: None))
        elif kind == "release" and self.leased:
            self.capacity.release(self.leased.pop(number % len(self.leased)).entry)
        elif kind == "close" and self.closing:
            self.capacity.closed(self.closing.pop(number % len(self.closing)))
        elif kind == "withdraw" and self.waiting:
            self.capacity.withdraw(self.waiting.pop(number % len(self.waiting)))
        self.settle()


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
def test_caps_hold_and_all_are_served(steps, engines, connections, pool_size):
    run = Run(engines, connections, pool_size)
    for kind, number in steps:
        run.step(kind, number)
    # Whoever still waits is served once the others end, one event at a time.
    for _ in range(400):
        if not run.waiting:
            break
        assert run.leased or run.closing, "they wait for nobody"
        run.step("close" if run.closing else "release", 0)
    assert run.waiting == []
    for claim in run.leased:
        run.capacity.release(claim.entry)
    run.closing += run.capacity.take_all()
    for entry in run.closing:
        run.capacity.closed(entry)
    assert run.capacity.connections == run.capacity.open_engines == 0


def test_a_tenant_with_no_connection_comes_before_one_that_wants_more():
    run = Run(engines=4, connections=2, pool_size=2)
    for number in (0, 0, 0, 1, 2):
        run.step("claim", number)
    assert [claim.url for claim in run.leased] == ["a", "a", "a"], "the third waits in the pool of its own engine"
    for _ in range(3):
        run.step("release", 0)
    run.step("close", 0)
    assert sorted(claim.url for claim in run.leased) == ["b", "c"]

"""The burn-down: what usage leaves of grants. Pure, exact, and without any state that grants and usage do not give.

Time is cut where a grant begins, ends or is refilled and where a usage period ends; the usage of each segment is asked
for as a whole. At an instant where several things happen they happen in this order: grants end, the period is reset
(rollover, usage to zero, overage dropped or preserved), grants are refilled, grants begin, overage is paid. So a grant
that expires at a reset is gone, and one that begins there is whole.

Usage may be negative: corrections and gauges give back. What is given back goes first against the overage, then to the
grants in reverse order, and what is more than they had given is kept for the usage that follows. So the end of a
segment depends on the sum of its usage only, not on how the usage came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, localcontext
from itertools import pairwise

from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant, burn_order
from usage_service.domain.quantities import EXACT


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Grants and the instants at which usage periods end. Resets are in order."""

    grants: Sequence[Grant]
    resets: Sequence[datetime] = ()
    pays_overage: bool = True
    """Whether a later grant pays first what was used beyond the earlier ones."""
    preserve_overage: bool = False
    """Whether overage outlives a reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at an instant.

    `owed` is the overage; where it is negative, more was given back than had been used. `spent` is by grant what usage
    has taken since it was last filled, which is what can be given back to it.
    """

    at: datetime
    left: Mapping[str, Decimal]
    spent: Mapping[str, Decimal] = field(default_factory=dict)
    owed: Decimal = ZERO
    usage: Decimal = ZERO
    since: datetime | None = None
    """Since when `usage` is counted: the last reset; None where the first period is not over."""

    @property
    def balance(self) -> Decimal:
        with localcontext(EXACT):
            return sum(self.left.values(), ZERO)

    @property
    def overage(self) -> Decimal:
        return max(ZERO, self.owed)

    @property
    def available(self) -> Decimal:
        """What the period has to give, used or not: usage is `available` less what is left, plus what is owed."""
        with localcontext(EXACT):
            return self.balance + self.usage - self.owed


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time in which the same grants hold, with what each had at its start."""

    start: datetime
    end: datetime
    usage: Decimal
    left_at_start: Mapping[str, Decimal]


@dataclass(slots=True)
class Account:
    """Where amounts came from and went: opened + granted = used + left + expired + rolled_off."""

    opened: Decimal = ZERO
    granted: Decimal = ZERO
    used: Decimal = ZERO
    expired: Decimal = ZERO
    rolled_off: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class BurnDown:
    """`closing` is the state just before what happens at its instant, `carried` the one after it."""

    segments: tuple[Segment, ...]
    closing: Snapshot
    carried: Snapshot
    account: Account


def opening(grants: Sequence[Grant], at: datetime) -> Snapshot:
    """The state in which nothing was used yet: whatever is active is whole."""
    return Snapshot(at=at, left={grant.id: grant.amount if grant.active_at(at) else ZERO for grant in grants})


def boundaries(terms: Terms, start: datetime, until: datetime) -> list[datetime]:
    """The ends of the segments of [start, until): both of them and every instant between at which something happens."""
    found = {start, until}
    for grant in terms.grants:
        found.update(moment for moment in (grant.effective_at, grant.ends_at) if start < moment < until)
        if grant.recurrence is not None:
            # Without this the hourly refills of a grant that ended years ago would cut what nobody burns.
            first, last = max(start, grant.effective_at), min(until, grant.ends_at)
            if first < last:
                found.update(moment for moment in grant.recurrence.occurrences(first, last) if moment < last)
    found.update(moment for moment in terms.resets if start < moment < until)
    return sorted(found)


def burn_down(terms: Terms, snapshot: Snapshot, until: datetime, usage: Sequence[Decimal]) -> BurnDown:
    """What `usage`, one number for each segment of `boundaries`, makes of the state until an instant.

    Raises InvalidGrant where the snapshot does not know exactly these grants, or a reset is not after it; ValueError
    where there is not one number for each segment.
    """
    if snapshot.left.keys() != {grant.id for grant in terms.grants}:
        raise InvalidGrant("grants", "the balances that are given are not those of the grants")
    if any(moment <= snapshot.at for moment in terms.resets):
        raise InvalidGrant("resets", "a reset comes after the state that the run starts with")
    spans = list(pairwise(boundaries(terms, snapshot.at, until)))
    with localcontext(EXACT):
        run = _Run(terms, snapshot)
        segments = []
        run.settle(snapshot.at)
        for (start, end), amount in zip(spans, usage, strict=True):
            if start > snapshot.at:
                run.turn(start)
            segments.append(Segment(start, end, amount, dict(run.left)))
            run.use(amount, start)
        closing = run.snapshot(until)
        account = replace(run.account)
        if until > snapshot.at:
            run.turn(until)
        return BurnDown(tuple(segments), closing, run.snapshot(until), account)


class _Run:
    """The state while it changes, in the exact context of the caller."""

    def __init__(self, terms: Terms, snapshot: Snapshot) -> None:
        self.terms = terms
        self.order = burn_order(terms.grants)
        self.resets = frozenset(terms.resets)
        self.left = {
            grant.id: snapshot.left[grant.id] if grant.active_at(snapshot.at) else ZERO for grant in terms.grants
        }
        self.spent = {grant.id: snapshot.spent.get(grant.id, ZERO) for grant in terms.grants}
        self.owed = snapshot.owed
        self.usage = snapshot.usage
        self.since = snapshot.since
        self.account = Account(opened=sum(self.left.values(), ZERO))

    def snapshot(self, at: datetime) -> Snapshot:
        return Snapshot(
            at=at,
            left=dict(self.left),
            spent=dict(self.spent),
            owed=self.owed,
            usage=self.usage,
            since=self.since,
        )

    def turn(self, at: datetime) -> None:
        """What happens at an instant."""
        grants = self.terms.grants
        self._end(grant for grant in grants if grant.ends_at == at)
        if at in self.resets:
            self._reset(at)
        for grant in grants:
            if grant.fills_at(at):
                self._set(grant, grant.amount)
        self.settle(at)

    def settle(self, at: datetime) -> None:
        """Pays what is owed, where the terms say so and something is there to pay it with."""
        if self.owed > 0 and self.terms.pays_overage:
            # What pays a debt is gone: to give back usage of the new period must not undo it.
            spent = dict(self.spent)
            self.owed = self._burn(self.owed, at)
            self.spent = spent

    def use(self, amount: Decimal, at: datetime) -> None:
        """Burns the usage of a segment that begins at an instant, or gives it back."""
        self.usage += amount
        if amount < 0:
            self._give_back(-amount, at)
            return
        if self.owed < 0:
            kept = min(amount, -self.owed)
            self.owed += kept
            amount -= kept
        self.owed += self._burn(amount, at)

    def _burn(self, amount: Decimal, at: datetime) -> Decimal:
        """Takes an amount from the grants; returns what they could not give."""
        for grant in self.order:
            if amount == 0:
                break
            if grant.active_at(at):
                taken = min(amount, self.left[grant.id])
                self.left[grant.id] -= taken
                self.spent[grant.id] += taken
                self.account.used += taken
                amount -= taken
        return amount

    def _give_back(self, amount: Decimal, at: datetime) -> None:
        if self.owed > 0:
            paid = min(amount, self.owed)
            self.owed -= paid
            amount -= paid
        for grant in reversed(self.order):
            if amount == 0:
                break
            if grant.active_at(at):
                returned = min(amount, self.spent[grant.id])
                self.left[grant.id] += returned
                self.spent[grant.id] -= returned
                self.account.used -= returned
                amount -= returned
        self.owed -= amount

    def _end(self, grants: Iterable[Grant]) -> None:
        for grant in grants:
            self.account.expired += self.left[grant.id]
            self.left[grant.id] = self.spent[grant.id] = ZERO

    def _reset(self, at: datetime) -> None:
        for grant in self.terms.grants:
            if grant.active_at(at) and grant.effective_at < at:
                self._set(grant, grant.rolled_over(self.left[grant.id]))
        self.usage, self.since = ZERO, at
        if not self.terms.preserve_overage:
            self.owed = ZERO

    def _set(self, grant: Grant, amount: Decimal) -> None:
        change = amount - self.left[grant.id]
        if change >= 0:
            self.account.granted += change
        else:
            self.account.rolled_off -= change
        self.left[grant.id], self.spent[grant.id] = amount, ZERO

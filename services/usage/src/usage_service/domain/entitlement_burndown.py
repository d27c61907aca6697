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

from bisect import insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, localcontext
from itertools import pairwise

from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import ZERO, Grant, burn_order, burn_rank
from usage_service.domain.quantities import EXACT


@dataclass(frozen=True, slots=True)
class Reset:
    """The end of a usage period, and what holds in the next one."""

    at: datetime
    preserves_overage: bool = False
    """Whether what is owed outlives it."""
    pays_overage: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Grants and the ends of usage periods, in order."""

    grants: Sequence[Grant]
    resets: Sequence[Reset] = ()
    pays_overage: bool = True
    """Whether a later grant pays first what was used beyond the earlier ones, until the first reset."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of all grants, what the period has used, and what is owed: where that is negative, more was given
    back than had been used. `inherited` is what of it was owed before the period and is not paid yet.
    """

    balance: Decimal
    usage: Decimal
    owed: Decimal
    inherited: Decimal

    @property
    def overage(self) -> Decimal:
        return max(ZERO, self.owed)

    @property
    def available(self) -> Decimal:
        """What the period has to give, used or not: usage is `available` less what is left, plus what it owes."""
        with localcontext(EXACT):
            return self.balance + self.usage - (self.owed - self.inherited)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at an instant.

    `spent` is by grant what usage has taken since it was last filled, which is what can be given back to it.
    """

    at: datetime
    left: Mapping[str, Decimal]
    spent: Mapping[str, Decimal] = field(default_factory=dict)
    owed: Decimal = ZERO
    inherited: Decimal = ZERO
    usage: Decimal = ZERO

    @property
    def standing(self) -> Standing:
        with localcontext(EXACT):
            return Standing(sum(self.left.values(), ZERO), self.usage, self.owed, self.inherited)


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
    """`closing` is the state just before what happens at its instant, `carried` the one after it; `ended` is what each
    reset found.
    """

    ended: tuple[Standing, ...]
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
    found.update(reset.at for reset in terms.resets if start < reset.at < until)
    return sorted(found)


def burn_down(terms: Terms, snapshot: Snapshot, until: datetime, usage: Sequence[Decimal]) -> BurnDown:
    """What `usage`, one number for each segment of `boundaries`, makes of the state until an instant.

    Raises InvalidGrant where the snapshot does not know exactly these grants, or a reset is not after it; ValueError
    where there is not one number for each segment.
    """
    if snapshot.left.keys() != {grant.id for grant in terms.grants}:
        raise InvalidGrant("grants", "the balances that are given are not those of the grants")
    if any(reset.at <= snapshot.at for reset in terms.resets):
        raise InvalidGrant("resets", "a reset comes after the state that the run starts with")
    spans = list(pairwise(boundaries(terms, snapshot.at, until)))
    with localcontext(EXACT):
        run = _Run(terms, snapshot)
        run.settle()
        for (start, _), amount in zip(spans, usage, strict=True):
            if start > snapshot.at:
                run.turn(start)
            run.use(amount)
        closing, ended = run.snapshot(until), tuple(run.ended)
        account = replace(run.account)
        if until > snapshot.at:
            run.turn(until)
        return BurnDown(ended, closing, run.snapshot(until), account)


class _Run:
    """The state while it changes, in the exact context of the caller.

    It knows the grants that hold now: a quota of hours has had thousands of limits in a year.
    """

    def __init__(self, terms: Terms, snapshot: Snapshot) -> None:
        at = snapshot.at
        self.resets = {reset.at: reset for reset in terms.resets}
        self.pays_overage = terms.pays_overage
        self.none_left = dict.fromkeys(snapshot.left, ZERO)
        self.coming = sorted(
            (grant for grant in terms.grants if at < grant.effective_at < grant.ends_at),
            key=lambda grant: grant.effective_at,
            reverse=True,
        )
        self.live = burn_order(grant for grant in terms.grants if grant.active_at(at))
        self.left = {grant.id: snapshot.left[grant.id] for grant in self.live}
        self.spent = {grant.id: snapshot.spent.get(grant.id, ZERO) for grant in self.live}
        self.owed = snapshot.owed
        self.inherited = snapshot.inherited
        self.usage = snapshot.usage
        self.ended: list[Standing] = []
        self.account = Account(opened=sum(self.left.values(), ZERO))

    def snapshot(self, at: datetime) -> Snapshot:
        return Snapshot(
            at=at,
            left=self.none_left | self.left,
            spent=dict(self.spent),
            owed=self.owed,
            inherited=self.inherited,
            usage=self.usage,
        )

    def turn(self, at: datetime) -> None:
        """What happens at an instant."""
        reset = self.resets.get(at)
        if reset is not None:
            balance = sum(self.left.values(), ZERO)
            self.ended.append(Standing(balance, self.usage, self.owed, self.inherited))
        self._end(at)
        if reset is not None:
            self._reset(reset)
        for grant in self.live:
            if grant.recurrence is not None and grant.fills_at(at):
                self._set(grant, grant.amount)
        while self.coming and self.coming[-1].effective_at <= at:
            grant = self.coming.pop()
            insort(self.live, grant, key=burn_rank)
            self.left[grant.id] = self.spent[grant.id] = ZERO
            self._set(grant, grant.amount)
        self.settle()
        if reset is not None:
            self.inherited = max(ZERO, self.owed)

    def settle(self) -> None:
        """Pays what is owed, where the terms say so and something is there to pay it with; the oldest debt first."""
        if self.owed > 0 and self.pays_overage:
            # What pays a debt is gone: to give back usage of the new period must not undo it.
            spent = dict(self.spent)
            owed, self.owed = self.owed, self._burn(self.owed)
            self.spent = spent
            self.inherited = max(ZERO, self.inherited - (owed - self.owed))

    def use(self, amount: Decimal) -> None:
        """Burns the usage of a segment, or gives it back."""
        self.usage += amount
        if amount < 0:
            self._give_back(-amount)
            return
        if self.owed < 0:
            kept = min(amount, -self.owed)
            self.owed += kept
            amount -= kept
        self.owed += self._burn(amount)

    def _burn(self, amount: Decimal) -> Decimal:
        """Takes an amount from the grants; returns what they could not give."""
        for grant in self.live:
            if amount == 0:
                break
            taken = min(amount, self.left[grant.id])
            self.left[grant.id] -= taken
            self.spent[grant.id] += taken
            self.account.used += taken
            amount -= taken
        return amount

    def _give_back(self, amount: Decimal) -> None:
        if self.owed > 0:
            paid = min(amount, self.owed)
            self.owed -= paid
            amount -= paid
        for grant in reversed(self.live):
            if amount == 0:
                break
            returned = min(amount, self.spent[grant.id])
            self.left[grant.id] += returned
            self.spent[grant.id] -= returned
            self.account.used -= returned
            amount -= returned
        self.owed -= amount

    def _end(self, at: datetime) -> None:
        ended = {grant.id for grant in self.live if grant.ends_at <= at}
        self.account.expired += sum(self._drop(ended), ZERO)

    def _reset(self, reset: Reset) -> None:
        for grant in self.live:
            self._set(grant, grant.rolled_over(self.left[grant.id]))
        # What is used up, and nothing fills again, would only be walked by for as long as it is active.
        self._drop({grant.id for grant in self.live if not self.left[grant.id] and grant.recurrence is None})
        self.usage = self.inherited = ZERO
        self.pays_overage = reset.pays_overage
        if not reset.preserves_overage:
            self.owed = ZERO

    def _drop(self, names: Collection[str]) -> list[Decimal]:
        """Takes grants out; returns what they had left."""
        if not names:
            return []
        self.live = [grant for grant in self.live if grant.id not in names]
        for name in names:
            del self.spent[name]
        return [self.left.pop(name) for name in names]

    def _set(self, grant: Grant, amount: Decimal) -> None:
        change = amount - self.left[grant.id]
        if change >= 0:
            self.account.granted += change
        else:
            self.account.rolled_off -= change
        self.left[grant.id], self.spent[grant.id] = amount, ZERO

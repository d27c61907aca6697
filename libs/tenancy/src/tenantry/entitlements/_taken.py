"""What this process has let pass and cannot yet see in a balance."""

from collections import deque
from decimal import Context, Decimal
from typing import Final

EXACT: Final = Context(prec=120)
_ZERO: Final = Decimal(0)
_SECONDS: Final = 100  # kept apart; while nothing is counted the later ones are one


class Taken:
    """Amounts that count until `hold_seconds` behind them is reached: long enough for the usage to be received.

    Kept by the second, so it is small however much passes.
    """

    def __init__(self, hold_seconds: float) -> None:
        self._hold = hold_seconds
        self._seconds: deque[tuple[int, Decimal]] = deque()
        self._total = _ZERO

    def total(self, reached: float) -> Decimal:
        """What of it counts while balances hold what was received until `reached`, on a monotonic clock."""
        # The whole second of an amount is over, and then the hold: an amount never counts for less.
        while self._seconds and self._seconds[0][0] + 1 + self._hold <= reached:
            _, amount = self._seconds.popleft()
            self._total = EXACT.subtract(self._total, amount)
        return self._total

    def add(self, amount: Decimal, now: float) -> None:
        second = int(now)
        if self._seconds and (self._seconds[-1][0] == second or len(self._seconds) >= _SECONDS):
            amount_so_far = self._seconds.pop()[1]
            self._seconds.append((second, EXACT.add(amount_so_far, amount)))
        else:
            self._seconds.append((second, amount))
        self._total = EXACT.add(self._total, amount)

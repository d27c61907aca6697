"""How fast one tenant is refused: a refusal costs the process too, and two thousand a second are most of a core.

The answers to whoever goes on asking beyond its limit come at a pace, so each of its connections waits for the last
answer instead of asking for the next. Those who are over their limit now and then do not notice.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

AT_ONCE: Final = 50
"""Refusals of one tenant that are answered without delay, after a time without any."""
PER_SECOND: Final = 100
"""Refusals of one tenant a second, beyond those."""
LONGEST_HOLD: Final = 1.0
"""Seconds that an answer is held at most: with more connections than that slows, refusals come faster."""
MOST_HELD: Final = 1_000
"""Answers that one process holds at a time; each is a request in memory."""

_INTERVAL: Final = 1 / PER_SECOND


class RefusalPace:
    """The refusals of one process. Belongs to one event loop."""

    def __init__(self, at_once: int = AT_ONCE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._headstart = at_once * _INTERVAL
        self._now = monotonic
        self._held = 0
        # When the tenant's next refusal would be due at PER_SECOND; a time that is past says nothing.
        self._due: dict[UUID, float] = {}

    def take(self, tenant_id: UUID) -> float:
        """For how many seconds the answer that refuses the tenant now is to be held."""
        now = self._now()
        if len(self._due) > MOST_HELD:
            self._due = {known: due for known, due in self._due.items() if due > now}
        due = max(self._due.get(tenant_id, now), now) + _INTERVAL
        hold = min(max(0.0, due - now - self._headstart), LONGEST_HOLD)
        # Not later than the longest hold, or a tenant would be slowed long after it has stopped.
        self._due[tenant_id] = min(due, now + self._headstart + LONGEST_HOLD)
        return hold

    async def wait(self, tenant_id: UUID) -> None:
        """Returns when the tenant may be told that it is refused."""
        hold = self.take(tenant_id)
        if hold <= 0 or self._held >= MOST_HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(hold)
        finally:
            self._held -= 1

"""Pauses between attempts."""

import asyncio
from typing import Final

_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 5.0


class Backoff:
    """Pauses that double from 0.1 to 5 seconds until `reset`."""

    def __init__(self, first: float = _FIRST_SECONDS, longest: float = _LONGEST_SECONDS) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        self._next = self._first

    async def wait(self) -> None:
        pause, self._next = self._next, min(self._next * 2, self._longest)
        await asyncio.sleep(pause)

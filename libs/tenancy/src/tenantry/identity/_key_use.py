"""When API keys were last used: the tenant service does not see the requests that services check by themselves."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final

import httpx
import structlog

from tenantry._clock import Clock, SystemClock
from tenantry._errors import Unavailable

log = structlog.get_logger(__name__)

PATH: Final = "/v1/api-keys/used"
MOST_KEYS: Final = 100_000
# What one request holds, well below the 256 KiB that its body may have.
_AT_ONCE: Final = 2_000
_AT_THE_END: Final = 2.0

Tell = Callable[[Mapping[str, datetime]], Awaitable[None]]
"""Passes on when keys were last used, by their ids. Raises `Unavailable` where that is to be tried again."""


class KeyUse:
    """The keys that were used since the last report, and when each was used last. Belongs to one event loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._last: dict[str, datetime] = {}

    def note(self, key_id: str) -> None:
        """The key was accepted just now. Of more keys than are remembered, the others are told of at a later use."""
        if key_id in self._last or len(self._last) < MOST_KEYS:
            self._last[key_id] = self._clock.now()

    async def report(self, tell: Tell, *, every: float) -> None:
        """Tells every so many seconds until it is cancelled, and once more then. What was not taken is told again."""
        failing = False
        try:
            while True:
                await asyncio.sleep(every)
                failed = not await self._report(tell)
                if failed and not failing:
                    log.warning("api_key_use_not_reported")
                failing = failed
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_AT_THE_END):
                    await self._report(tell)

    async def _report(self, tell: Tell) -> bool:
        untold, self._last = self._last, {}
        while untold:
            ids = list(untold)[:_AT_ONCE]
            try:
                await tell({key_id: untold[key_id] for key_id in ids})
            except BaseException as error:
                # What was noted meanwhile is newer.
                self._last = {**untold, **self._last}
                if isinstance(error, Unavailable):
                    return False
                raise
            for key_id in ids:
                del untold[key_id]
        return True


def told_by(tenant_service: httpx.AsyncClient) -> Tell:
    """Tells the tenant service, by a client that carries a service's token."""

    async def tell(last_used_at: Mapping[str, datetime]) -> None:
        body = {"last_used_at": {key_id: at.isoformat(timespec="seconds") for key_id, at in last_used_at.items()}}
        try:
            response = await tenant_service.post(PATH, json=body)
        except httpx.HTTPError as error:
            raise Unavailable("The tenant service is away.") from error
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            log.error("api_key_use_refused", answer=response.text[:500])  # it would be refused again
        elif not response.is_success:
            raise Unavailable(f"The tenant service answered {response.status_code}.")

    return tell

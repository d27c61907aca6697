"""Whether whoever is being served may go on: asked again while a response streams or a connection stays open."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import Counter
from starlette.types import Scope

from tenantry._errors import TenantryError

log = structlog.get_logger(__name__)

# How long a stream may go on after its caller has lost the right to it.
RECHECK_SECONDS: Final = 1.0

ENDED = Counter("streams_ended_total", "Streams and connections that were ended before their end", ["reason"])

Readmit = Callable[[Scope], Awaitable[object]]
"""Raises a `TenantryError` where the request would not be admitted any more."""


class Watch:
    """Asks every so often, also while nothing is sent, and cancels the task that serves the request where it must end.

    Nothing runs before `start`.
    """

    __slots__ = ("_readmit", "_refusal", "_seconds", "_serving", "_task", "scope")

    def __init__(self, readmit: Readmit, scope: Scope, seconds: float, serving: "asyncio.Task[object] | None") -> None:
        """`serving` is the task that serves the request, which need not be the one that sends."""
        self._readmit = readmit
        self.scope = scope
        self._seconds = seconds
        self._serving = serving
        self._task: asyncio.Task[None] | None = None
        self._refusal: TenantryError | None = None

    def start(self) -> None:
        """May be repeated."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def taken_for_cancellation(self) -> TenantryError | None:
        """Asked by the serving task that was cancelled: the refusal that it was cancelled for, which is then over.

        None where somebody else has cancelled it, be it beside a refusal.
        """
        if self._refusal is None or self._serving is None or self._serving.uncancel() > 0:
            return None
        return self._refusal

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self._readmit(self.scope)
            except TenantryError as error:
                refusal = error
                break
            except Exception:
                # A resolver that fails now may answer in a second, and says nothing about the caller.
                log.exception("stream_not_rechecked")
        self._refusal = refusal
        if self._serving is not None:
            self._serving.cancel()


def count_ended(error: TenantryError) -> None:
    """One stream was ended because of `error`."""
    ENDED.labels(error.type).inc()
    log.info("stream_ended", reason=error.type)

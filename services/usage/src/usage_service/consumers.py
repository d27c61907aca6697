"""What the usage service does when the tenant service asks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from tenantry import LocalDirectory, Unavailable
from tenantry.events import Handler, KafkaDirectory, Request


class ClockAdvance(msgspec.Struct, frozen=True):
    clock_id: UUID
    to: datetime


def clock_handler(state: KafkaDirectory, *, wait_seconds: float) -> Handler:
    """Acknowledges an advance once every tenant of the clock is seen at the new time: later events are judged by it."""

    async def advance(request: Request) -> Mapping[str, Any]:
        asked = msgspec.convert(request.data, ClockAdvance)
        try:
            await state.wait_for(lambda: _shows(state.directory, asked), wait_seconds)
        except TimeoutError:
            raise Unavailable("The new time has not reached the directory yet.") from None
        return {"now": asked.to.isoformat()}

    return advance


def _shows(directory: LocalDirectory, asked: ClockAdvance) -> bool:
    clocks = (tenant.clock for tenant in directory)
    return all(clock.now >= asked.to for clock in clocks if clock is not None and clock.id == asked.clock_id)

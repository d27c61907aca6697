"""What the tenant service asks of this service, and the answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from tenantry import InvalidRequest, LocalDirectory
from tenantry.database import Places
from tenantry.events import (
    PLACE_LANES,
    STATE_APPLIED,
    Handler,
    KafkaDirectory,
    Lane,
    LaneRule,
    Request,
    place_handlers,
    state_applied,
)
from tenantry.reconciling import OBSERVE_LANES

ADVANCE_CLOCK: Final = "clock.advance"


class _AdvanceClock(msgspec.Struct, frozen=True):
    clock_id: UUID
    to: datetime


def request_handlers(directory: KafkaDirectory, places: Places, *, clock_wait_seconds: int) -> Mapping[str, Handler]:
    """The handlers of this service by kind of request. Each may be called again for a request it has answered."""

    async def advance_clock(request: Request) -> Mapping[str, Any]:
        """Done once every tenant of the clock is known to live in the new time: what is metered next carries it."""
        try:
            advance = msgspec.convert(request.data, _AdvanceClock)
        except msgspec.ValidationError as error:
            raise InvalidRequest(str(error)) from error
        await directory.wait_for(
            lambda: clock_shows(directory.directory, advance.clock_id, advance.to), timeout=clock_wait_seconds
        )
        return {"now": advance.to.isoformat()}

    return {
        **place_handlers(places, directory),
        ADVANCE_CLOCK: advance_clock,
        STATE_APPLIED: state_applied(directory),
    }


def clock_shows(directory: LocalDirectory, clock_id: UUID, instant: datetime) -> bool:
    """Whether no tenant of the clock lives before `instant`, as far as the directory knows."""
    return all(
        tenant.clock.now >= instant for tenant in directory if tenant.clock is not None and tenant.clock.id == clock_id
    )


LANES: Final[Mapping[str, LaneRule]] = {
    **PLACE_LANES,
    **OBSERVE_LANES,
    ADVANCE_CLOCK: Lane.WAITING,
    STATE_APPLIED: Lane.WAITING,
}

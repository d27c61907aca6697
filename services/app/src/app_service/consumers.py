"""What the tenant service asks of this service, and the answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from app_service.provisioning import provision_tenant
from tenantry import Conflict, InvalidRequest, Isolation, LocalDirectory, Placement
from tenantry.database import release_place
from tenantry.events import STATE_APPLIED, Handler, KafkaDirectory, Lane, LaneRule, Request, state_applied

SERVICE: Final = "app"
PROVISION: Final = "tenant.provision"
RELEASE: Final = "tenant.release"
ADVANCE_CLOCK: Final = "clock.advance"


_Data = TypeVar("_Data")


class _Provision(msgspec.Struct, frozen=True):
    placement: Placement


class TenantHasLived(Conflict):
    """Only the place of a tenant that was never active is taken back: the others are offboarded."""

    type = "tenant-has-lived"
    title = "The tenant has been active"


class _AdvanceClock(msgspec.Struct, frozen=True):
    clock_id: UUID
    to: datetime


def request_handlers(
    directory: KafkaDirectory, *, provisioner_url: str, clock_wait_seconds: int
) -> Mapping[str, Handler]:
    """The handlers of this service by kind of request. Each may be called again for a request it has answered."""

    async def provision(request: Request) -> Mapping[str, Any]:
        if request.tenant_id is None:
            raise InvalidRequest("a tenant to provision is missing")
        placement = _data(request, _Provision).placement
        await provision_tenant(provisioner_url, request.tenant_id, placement.isolation)
        return {"isolation": placement.isolation, "store": placement.store}

    async def release(request: Request) -> Mapping[str, Any]:
        if request.tenant_id is None:
            raise InvalidRequest("a tenant to release is missing")
        placement = _data(request, _Provision).placement
        known = directory.directory.get(request.tenant_id)
        if known is not None and known.activated_at is not None:
            raise TenantHasLived(f"It was activated at {known.activated_at.isoformat()}")
        dropped = await release_place(provisioner_url, SERVICE, request.tenant_id, placement.isolation)
        return {"dropped": dropped}

    async def advance_clock(request: Request) -> Mapping[str, Any]:
        """Done once every tenant of the clock is known to live in the new time: what is metered next carries it."""
        advance = _data(request, _AdvanceClock)
        await directory.wait_for(
            lambda: clock_shows(directory.directory, advance.clock_id, advance.to), timeout=clock_wait_seconds
        )
        return {"now": advance.to.isoformat()}

    return {
        PROVISION: provision,
        RELEASE: release,
        ADVANCE_CLOCK: advance_clock,
        STATE_APPLIED: state_applied(directory),
    }


def place_lane(request: Request) -> Lane:
    """A pool tenant has its place already; a schema or a database takes its time."""
    placement = request.data.get("placement")
    isolation = placement.get("isolation") if isinstance(placement, dict) else None
    return Lane.QUICK if isolation == Isolation.POOL else Lane.SLOW


LANES: Final[Mapping[str, LaneRule]] = {
    PROVISION: place_lane,
    RELEASE: place_lane,
    ADVANCE_CLOCK: Lane.WAITING,
    STATE_APPLIED: Lane.WAITING,
}


def clock_shows(directory: LocalDirectory, clock_id: UUID, instant: datetime) -> bool:
    """Whether no tenant of the clock lives before `instant`, as far as the directory knows."""
    return all(
        tenant.clock.now >= instant for tenant in directory if tenant.clock is not None and tenant.clock.id == clock_id
    )


def _data(request: Request, kind: type[_Data]) -> _Data:
    try:
        return msgspec.convert(request.data, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from error

"""What the tenant service asks of this service, and the answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from app_service.provisioning import provision_tenant
from tenantry import InvalidRequest, LocalDirectory, Placement
from tenantry.events import Handler, KafkaDirectory, Request

PROVISION: Final = "tenant.provision"
ADVANCE_CLOCK: Final = "clock.advance"


_Data = TypeVar("_Data")


class _Provision(msgspec.Struct, frozen=True):
    placement: Placement


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

    async def advance_clock(request: Request) -> Mapping[str, Any]:
        """Done once every tenant of the clock is known to live in the new time: what is metered next carries it."""
        advance = _data(request, _AdvanceClock)
        await directory.wait_for(
            lambda: clock_shows(directory.directory, advance.clock_id, advance.to), timeout=clock_wait_seconds
        )
        return {"now": advance.to.isoformat()}

    return {PROVISION: provision, ADVANCE_CLOCK: advance_clock}


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

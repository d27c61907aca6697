"""Makes the places of tenants when the tenant service asks for them, and gives them back."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import msgspec

from tenantry import Conflict, InvalidRequest, Isolation, Placement
from tenantry.database import Places, UnknownStore
from tenantry.events._directory import KafkaDirectory
from tenantry.events._requests import Handler, Lane, LaneRule, Request

PROVISION_TENANT: Final = "tenant.provision"
RELEASE_TENANT: Final = "tenant.release"


class StoreNotServed(Conflict):
    """The placement names a store that this service has no URLs for: an operator has something to configure."""

    type = "store-unknown"
    title = "The store is not known to this service"


class TenantHasLived(Conflict):
    """Only the place of a tenant that was never active is taken back: the others are offboarded."""

    type = "tenant-has-lived"
    title = "The tenant has been active"


class _Data(msgspec.Struct, frozen=True):
    placement: Placement


def place_handlers(places: Places, directory: KafkaDirectory) -> Mapping[str, Handler]:
    """The handlers of `tenant.provision` and `tenant.release` of a service that keeps tenants where they are placed.

    Each may be called again for a request that it has answered. See `PLACE_LANES` for their lanes.
    """

    async def provision(request: Request) -> Mapping[str, Any]:
        tenant_id, placement = _read(request)
        try:
            await places.provide(tenant_id, placement)
        except UnknownStore as error:
            raise StoreNotServed(error.detail) from error
        return {"isolation": placement.isolation, "store": placement.store}

    async def release(request: Request) -> Mapping[str, Any]:
        tenant_id, placement = _read(request)
        known = directory.directory.get(tenant_id)
        if known is not None and known.activated_at is not None:
            raise TenantHasLived(f"It was activated at {known.activated_at.isoformat()}")
        try:
            return {"dropped": await places.release(tenant_id, placement)}
        except UnknownStore:
            return {"dropped": False}  # nothing was ever made there

    return {PROVISION_TENANT: provision, RELEASE_TENANT: release}


def place_lane(request: Request) -> Lane:
    """A pool tenant has its place already; a schema or a database takes its time."""
    placement = request.data.get("placement")
    isolation = placement.get("isolation") if isinstance(placement, dict) else None
    return Lane.QUICK if isolation == Isolation.POOL else Lane.SLOW


PLACE_LANES: Final[Mapping[str, LaneRule]] = {PROVISION_TENANT: place_lane, RELEASE_TENANT: place_lane}


def _read(request: Request) -> tuple[UUID, Placement]:
    if request.tenant_id is None:
        raise InvalidRequest("the tenant whose place it is about is missing")
    try:
        return request.tenant_id, msgspec.convert(request.data, _Data).placement
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from error

"""The answer to the reconciler: one handler, for a service of any kind."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from tenantry._errors import InvalidRequest
from tenantry._tenant import Isolation, Tenant, TenantStatus
from tenantry.database import Databases, DataCatalogue
from tenantry.events import Handler, KafkaDirectory, Lane, LaneRule, Request
from tenantry.reconciling._report import (
    OBSERVE,
    Look,
    ObservedTenant,
    PlaceCondition,
    Report,
    UnexpectedPlace,
    digest_of,
    has_place,
    observed,
)
from tenantry.reconciling._rows import find_rows

if TYPE_CHECKING:
    from tenantry.database import FoundPlace, Places

OBSERVE_LANES: Final[Mapping[str, LaneRule]] = {OBSERVE: Lane.BACKGROUND}

# A page holds some hundred tenants; what is wrong with all of them is said by the first ones.
MOST: Final = 500
_MOST_FAULTS: Final = 100
_NOWHERE: Final = frozenset({TenantStatus.CANCELLED, TenantStatus.PURGED})


def observing_handlers(
    databases: Databases, catalogue: DataCatalogue, directory: KafkaDirectory | None, *, places: "Places | None" = None
) -> Mapping[str, Handler]:
    """The handler of `tenant.observe`, by kind, for `RequestResponder`; it changes nothing. See `OBSERVE_LANES`.

    `directory` is None for a service that keeps none, and `places` for one that keeps all tenants in its pool. A server
    that is away is waited for.
    """
    observer = _Observer(databases, catalogue, directory, places)
    return {OBSERVE: observer.observe}


class _Observer:
    def __init__(
        self,
        databases: Databases,
        catalogue: DataCatalogue,
        directory: KafkaDirectory | None,
        places: "Places | None",
    ) -> None:
        self._databases = databases
        self._catalogue = catalogue
        self._directory = directory
        self._places = places

    async def observe(self, request: Request) -> Mapping[str, Any]:
        try:
            look = msgspec.convert(request.data, Look)
        except msgspec.ValidationError as error:
            raise InvalidRequest(str(error)) from error
        known = [] if self._directory is None else [each for each in self._directory.directory if look.covers(each.id)]
        found = await self._find_places(look, known)
        tenants = self._observed(known, found)
        places = self._unexpected(look, found)
        rows = (await find_rows(self._databases, self._catalogue, look.gone))[:MOST]
        faults = await self._faults() if look.after is None else []
        agrees = not (places or rows or faults) and (self._directory is None or digest_of(tenants) == look.digest)
        report = Report(
            agrees=agrees,
            follows=self._directory is not None,
            lag_seconds=self._lag(),
            tenants=() if agrees else tuple(tenants),
            places=tuple(places[:MOST]),
            rows=tuple(rows),
            faults=tuple(faults),
        )
        return dict(msgspec.to_builtins(report))

    async def _find_places(self, look: Look, known: Iterable[Tenant]) -> "Sequence[FoundPlace]":
        if self._places is None:
            return []
        inspected = {each.id for each in known if has_place(each)}
        return await self._places.find(after=look.after, until=look.until, inspected=inspected)

    def _observed(self, known: Iterable[Tenant], found: "Sequence[FoundPlace]") -> list[ObservedTenant]:
        tier = (lambda _name: None) if self._directory is None else self._directory.directory.tier
        by_address = {(place.tenant_id, place.isolation, place.store): place for place in found}
        return [observed(each, tier(each.tier), self._condition(each, by_address)) for each in known]

    def _condition(self, tenant: Tenant, found: "Mapping[tuple[UUID, Isolation, str], FoundPlace]") -> PlaceCondition:
        placement, places = tenant.placement, self._places
        if placement is None or places is None:
            return PlaceCondition.READY
        if not places.serves(placement):
            return PlaceCondition.UNSERVED
        if placement.isolation is Isolation.POOL:
            return PlaceCondition.READY
        place = found.get((tenant.id, placement.isolation, placement.store))
        if place is None:
            return PlaceCondition.MISSING
        head, revision = places.heads.revision(placement.isolation), place.revision or ""
        # One that is newer was migrated by newer code, which is being deployed.
        return PlaceCondition.BEHIND if revision != head and places.heads.knows(revision) else PlaceCondition.READY

    def _unexpected(self, look: Look, found: "Iterable[FoundPlace]") -> list[UnexpectedPlace]:
        return [
            UnexpectedPlace(
                tenant_id=place.tenant_id,
                isolation=place.isolation,
                store=place.store,
                name=place.name_in(self._catalogue.service),
            )
            for place in found
            if self._is_unexpected(place, look)
        ]

    def _is_unexpected(self, place: "FoundPlace", look: Look) -> bool:
        tenant = None if self._directory is None else self._directory.directory.get(place.tenant_id)
        if tenant is None:
            return place.ours or place.tenant_id in look.gone
        if has_place(tenant):
            placement = tenant.placement
            return placement is None or (placement.isolation, placement.store) != (place.isolation, place.store)
        return tenant.status in _NOWHERE

    async def _faults(self) -> list[str]:
        faults: set[str] = set()
        for store in self._databases.stores:
            async with self._databases.system_session(store) as session:
                faults.update(await self._catalogue.unclassified(await session.connection()))
        return sorted(faults)[:_MOST_FAULTS]

    def _lag(self) -> float | None:
        lag = math.inf if self._directory is None else self._directory.lag_seconds
        return lag if math.isfinite(lag) else None

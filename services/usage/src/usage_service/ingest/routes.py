"""Where events go: from the subject a client writes to the tenant, its partition key and its clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from tenantry import Clock, Operation, Tenant, TenantDirectory, TenantStatus
from tenantry.events import partition_key
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import Bounds, Route

FUTURE: Final = timedelta(minutes=10)
FIRST_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Nothing older can be metered: a day costs a partition, so the past has an end even where a tier sets none."""

_NOWHERE: Final = Bounds(FIRST_DAY, FIRST_DAY, FIRST_DAY)
_REMEMBERED: Final = 200_000


class RouteTable:
    """Routes of all subjects for one kind of caller, remembered until the directory changes.

    `at` sets the receipt time for what is resolved after it: it is told once a request, and nothing waits in between.
    """

    def __init__(
        self, directory: TenantDirectory, clock: Clock, operation: Operation, *, accept_late: bool = False
    ) -> None:
        """`operation` is INGEST for callers of a tenant, SERVICE_INGEST for services and operators.

        With `accept_late` no event is too old but for `FIRST_DAY`.
        """
        self._accept_late = accept_late
        self._directory = directory
        self._clock = clock
        self._operation = operation
        self._version = -1
        self._routes: dict[str, Route] = {}
        self._bounds: dict[str, tuple[Bounds, timedelta | None]] = {}

    def at(self) -> None:
        """Takes the receipt time of a request, and what the directory has learned since the last one."""
        if self._version != self._directory.version or len(self._routes) > _REMEMBERED:
            self._routes.clear()
            self._bounds.clear()
            self._version = self._directory.version
        now = self._clock.now()
        for bounds, max_age in self._bounds.values():
            bounds.now, bounds.earliest, bounds.latest = _times(now, max_age)

    def resolve(self, subject: str) -> Route:
        """The route of a subject, or a route that says why there is none."""
        route = self._routes.get(subject)
        if route is None:
            route = self._routes[subject] = self._find(subject)
        return route

    def resolve_own(self, own: UUID) -> _OwnRoutes:
        """The routes for a credential of one tenant: any other subject is a mismatch, existing or not."""
        return _OwnRoutes(self, str(own))

    def _find(self, subject: str) -> Route:
        tenant = self._directory.resolve(subject)
        if tenant is None or self._directory.is_purged(tenant.id):
            return Route("", b"", _NOWHERE, InvalidEvent("subject", "names no tenant", kind="unknown-tenant"))
        text, buckets = str(tenant.id), tenant.routing.buckets
        spread = partial(partition_key, text, buckets) if buckets > 1 else None
        return Route(text, partition_key(text), self._bounds_of(tenant), self._refusal(tenant), spread)

    def _refusal(self, tenant: Tenant) -> InvalidEvent | None:
        if tenant.blocks(self._operation):
            return InvalidEvent("subject", "the tenant is suspended", kind="tenant-suspended")
        if tenant.status in {TenantStatus.PURGING, TenantStatus.PURGED}:
            return InvalidEvent("subject", "the tenant is being purged", kind="tenant-suspended")
        return None

    def _bounds_of(self, tenant: Tenant) -> Bounds:
        tier = self._directory.tier(tenant.tier)
        # A tier that is not known yet has the default age of rule 7.
        seconds = 35 * 86_400 if tier is None else tier.max_event_age_seconds
        max_age = None if seconds is None or self._accept_late else timedelta(seconds=seconds)
        if tenant.clock is not None:
            return Bounds(*_times(tenant.clock.now, max_age))
        known = self._bounds.get(tenant.tier)
        if known is None:
            known = self._bounds[tenant.tier] = (Bounds(*_times(self._clock.now(), max_age)), max_age)
        return known[0]


class _OwnRoutes:
    """Callable as a resolver."""

    def __init__(self, table: RouteTable, own: str) -> None:
        self._table = table
        self._own = own

    def __call__(self, subject: str) -> Route:
        route = self._table.resolve(subject)
        if route.subject != self._own:
            mismatch = InvalidEvent("subject", "is not the tenant of the credential", kind="tenant-mismatch")
            return Route("", b"", _NOWHERE, mismatch)
        return route


def _times(now: datetime, max_age: timedelta | None) -> tuple[datetime, datetime, datetime]:
    now = now.astimezone(UTC)
    return now, FIRST_DAY if max_age is None else max(FIRST_DAY, now - max_age), now + FUTURE

"""Where events go: from the subject a client writes to the tenant, its partition key and its clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from tenantry import Clock, Operation, Tenant, TenantDirectory, TenantStatus
from tenantry.events import partition_key
from usage_service.domain.event_checks import Bounds, Route, SubjectRefusal

FUTURE: Final = timedelta(minutes=10)
FIRST_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Nothing older can be metered: a day costs a partition, so the past has an end even where a tier sets none."""
FOREIGN: Final = "tenant-mismatch"
"""The kind of a refusal of an event of another tenant than the caller's."""

_NOWHERE: Final = Bounds(FIRST_DAY, FIRST_DAY, FIRST_DAY)
_UNKNOWN: Final = Route("", b"", _NOWHERE, SubjectRefusal("names no tenant", "unknown-tenant"))
_FOREIGN: Final = Route("", b"", _NOWHERE, SubjectRefusal("is not the tenant of the credential", FOREIGN))
_REMEMBERED: Final = 200_000


class RouteTable:
    """Routes of all subjects for one kind of caller, those of tenants remembered until the directory changes.

    `at` sets the receipt time for what is resolved after it. It is told once a request; who waits in between and
    resolves again gets the time of a later one. Belongs to one thread.
    """

    def __init__(
        self,
        directory: TenantDirectory,
        clock: Clock,
        operation: Operation,
        *,
        region: str | None = None,
        accept_late: bool = False,
    ) -> None:
        """`operation` is INGEST for callers of a tenant, SERVICE_INGEST for services and operators.

        Tenants that are pinned to another `region` are refused. With `accept_late` no event is too old but for
        `FIRST_DAY`.
        """
        self._accept_late = accept_late
        self._directory = directory
        self._clock = clock
        self._operation = operation
        self._region = region
        self._version = -1
        self._routes: dict[str, Route] = {}
        self._bounds: dict[str, tuple[Bounds, timedelta | None]] = {}

    def anew(self) -> RouteTable:
        """The same table without what it remembers, for another thread."""
        return RouteTable(
            self._directory, self._clock, self._operation, region=self._region, accept_late=self._accept_late
        )

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
        return self._find(subject) if route is None else route

    def resolve_own(self, own: UUID) -> _OwnRoutes:
        """The routes for a credential of one tenant: any other subject is a mismatch, existing or not."""
        return _OwnRoutes(self, str(own))

    def _find(self, subject: str) -> Route:
        tenant = self._directory.resolve(subject)
        if tenant is None or self._directory.is_purged(tenant.id):
            return _UNKNOWN
        text, buckets = str(tenant.id), tenant.routing.buckets
        spread = partial(partition_key, text, buckets) if buckets > 1 else None
        route = Route(text, partition_key(text), self._bounds_of(tenant), self._refusal(tenant), spread)
        # What names nobody is without end, and so are the ways to write an id in letters of both cases.
        if subject in {text, text.upper(), tenant.external_id}:
            self._routes[subject] = route
        return route

    def _refusal(self, tenant: Tenant) -> SubjectRefusal | None:
        if tenant.blocks(self._operation):
            return SubjectRefusal("the tenant is suspended", "tenant-suspended")
        if tenant.status in {TenantStatus.PURGING, TenantStatus.PURGED}:
            return SubjectRefusal("the tenant is being purged", "tenant-suspended")
        if self._region is not None and tenant.region not in {None, self._region}:
            return SubjectRefusal("the tenant's data stays in another region", "residency-violation")
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
        return route if route.subject == self._own else _FOREIGN


def _times(now: datetime, max_age: timedelta | None) -> tuple[datetime, datetime, datetime]:
    now = now.astimezone(UTC)
    return now, FIRST_DAY if max_age is None else max(FIRST_DAY, now - max_age), now + FUTURE

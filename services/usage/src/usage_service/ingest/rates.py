"""The limits of tenants (`docs/limits.md`) where the middleware cannot hold them.

It lets in what a tenant sends itself, by the length that the request declares. What is left: bytes that were packed,
and the class `service_ingest`, as a service names its tenants in the events only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from starlette.types import Scope

from tenantry import Operation, PayloadTooLarge, RateLimited, Tenant, TenantDirectory
from tenantry.identity import Principal, PrincipalKind
from tenantry.identity import Scope as Granted
from tenantry.limits import Admission, Limiter
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import Accepted
from usage_service.domain.intake import Intake
from usage_service.metering.rows import TENANT_LENGTH

UNIT_BYTES: Final = 64 * 1024
"""What one unit of a rate pays for."""

"""A record's key begins with its tenant's id; a bucket may follow."""
_LOOK_AGAIN: Final = 0.25
"""Seconds for which a tenant without a limit is not asked for one; a new tier is asked for at once."""
_REMEMBERED: Final = 100_000


def units(size: int) -> int:
    """What so many bytes cost: at least one, and one for every `UNIT_BYTES` that were begun."""
    return max(1, -(-size // UNIT_BYTES))


def class_of(principal: Principal) -> Operation | None:
    """The class of limits that holds for what a caller sends; None for operators, who have no limits here."""
    if principal.acts_for_any_tenant:
        return None if Granted.PLATFORM in principal.scopes else Operation.SERVICE_INGEST
    return Operation.SERVICE_INGEST if principal.kind is PrincipalKind.SERVICE else Operation.INGEST


class IngestRates:
    """Takes from the rates of tenants. Belongs to one event loop."""

    def __init__(
        self,
        limiter: Limiter,
        directory: TenantDirectory,
        cost: Callable[[Scope], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cost` is what the middleware takes for a request before its body is read."""
        self._limiter = limiter
        self._directory = directory
        self._cost = cost
        self._monotonic = monotonic
        self._version = -1
        self._unlimited_until: dict[bytes, float] = {}

    async def admit_service(self, tenant: Tenant, scope: Scope) -> Admission:
        """Lets in a request of a service that names one tenant, as the middleware would. Raises as `Limiter.admit`."""
        return await self._limiter.admit(tenant, Operation.SERVICE_INGEST, self._cost(scope))

    async def charge_unpacked(self, tenant: Tenant, operation: Operation, scope: Scope, size: int) -> None:
        """Takes what a body of so many bytes costs beyond its declared length. Raises RateLimited, PayloadTooLarge."""
        more = units(size) - self._cost(scope)
        if more > 0:
            await self._limiter.charge(tenant, operation, more)

    async def refuse_beyond(self, intake: Intake) -> tuple[Intake, RateLimited | None]:
        """What is left of a service's events of many tenants once each has paid for its own, and the first refusal.

        The events of a tenant beyond its rate become refusals of the kind `rate-limited`, or `too-large` where they
        would never pass together.
        """
        tenants = self._to_be_asked(intake.accepted)
        if not tenants:
            return intake, None
        sizes = dict.fromkeys(tenants, 0)
        for event in intake.accepted:
            tenant = event.key[:TENANT_LENGTH]
            if tenant in sizes:
                sizes[tenant] += len(event.value)
        refused: dict[bytes, InvalidEvent] = {}
        first: RateLimited | None = None
        for tenant, size in sizes.items():
            try:
                await self._charge(tenant, units(size))
            except RateLimited as error:
                first = first or error
                refused[tenant] = InvalidEvent("subject", error.detail, kind="rate-limited")
            except PayloadTooLarge as error:
                refused[tenant] = InvalidEvent("subject", error.detail, kind="too-large")
        return intake.without(lambda event: refused.get(event.key[:TENANT_LENGTH])) if refused else intake, first

    def _to_be_asked(self, events: Sequence[Accepted]) -> list[bytes]:
        now = self._monotonic()
        known = self._unlimited_until
        if self._version != self._directory.version or len(known) > _REMEMBERED:
            known.clear()
            self._version = self._directory.version
        tenants = {key[:TENANT_LENGTH] for key in {event.key for event in events}}
        return [tenant for tenant in tenants if known.get(tenant, 0.0) <= now]

    async def _charge(self, tenant_id: bytes, cost: int) -> None:
        tenant = self._directory.get(UUID(tenant_id.decode()))
        if tenant is None or Operation.SERVICE_INGEST not in self._limiter.limits_of(tenant).requests:
            self._unlimited_until[tenant_id] = self._monotonic() + _LOOK_AGAIN
        else:
            await self._limiter.charge(tenant, Operation.SERVICE_INGEST, cost)

"""Whether a request of a tenant may be worked on now, by what its tier allows and by what the process has room for."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Counter

from tenantry._directory import TenantDirectory
from tenantry._errors import PayloadTooLarge, RateLimited
from tenantry._tenant import Operation, Tenant, Tier
from tenantry.limits._buckets import MICRO, Policy, TokenBuckets, Verdict
from tenantry.limits._document import DEFAULT_CLASS, OUTSIDE_DEFAULT, UNLIMITED, TenantLimits, read_limits
from tenantry.limits._fair_queue import Share
from tenantry.limits._gate import FairGate, Place, ProcessFull, TenantFull

log = structlog.get_logger(__name__)

_REFUSED: Final = Counter(
    "tenantry_limited_requests_total", "Requests that were not worked on for want of room.", ("service", "reason")
)


class SharedTake(Protocol):
    """Buckets that processes have in common: `SharedBuckets`, or a peer of it."""

    async def take(self, tenant_id: UUID, policy: Policy, part: Policy, cost: int) -> Verdict: ...


class Admission(NamedTuple):
    """What a request was given: a place, to be released at its end, and what its answer says of the limit."""

    place: Place
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Limit(NamedTuple):
    policy: Policy
    part: Policy
    """What one of the processes enforces alone."""
    header: str
    """`RateLimit-Policy`."""


class _Rules(NamedTuple):
    """A tier's limits, ready for use."""

    tier: Tier | None
    limits: TenantLimits
    requests: Share
    connections: Share
    by_class: Mapping[str, _Limit | None]


class Limiter:
    """Judges by local state alone, so a changed tier holds from the next request on. Belongs to one event loop."""

    def __init__(
        self,
        service: str,
        directory: TenantDirectory,
        *,
        gate: FairGate,
        replicas: int = 1,
        shared: SharedTake | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`gate` holds the places of this process. `replicas` is how many processes divide a rate among them.

        With `shared` buckets rates hold exactly over all processes, for a round trip each; `replicas` then says what
        each does alone while they are away.
        """
        self._directory = directory
        self._gate = gate
        self._replicas = replicas
        self._shared = shared
        self._buckets = TokenBuckets(monotonic_ns)
        self._by_tier: dict[str, _Rules] = {}
        self._refused_by_rate = _REFUSED.labels(service, "rate")
        self._refused_by_tenant = _REFUSED.labels(service, "concurrency")
        self._refused_by_process = _REFUSED.labels(service, "process")

    @property
    def buckets(self) -> TokenBuckets:
        """The buckets of this process."""
        return self._buckets

    def limits_of(self, tenant: Tenant) -> TenantLimits:
        """What the tenant's tier allows now."""
        return self._rules(tenant).limits

    def connections_of(self, tenant: Tenant) -> Share:
        """The tenant's share of database sessions."""
        return self._rules(tenant).connections

    async def admit(self, tenant: Tenant, operation: Operation, cost: int = 1) -> Admission:
        """Takes `cost` units of the tenant's rate and a place in the process; waits for the place where it must.

        Raises `RateLimited` (429), `TenantFull` (429) or `ProcessFull` (503), and `PayloadTooLarge` where the request
        costs more than may ever come at once. What is refused at once has taken nothing.
        """
        rules = self._rules(tenant)
        try:
            self._gate.check(tenant.id, rules.requests)
            headers: tuple[tuple[bytes, bytes], ...] = ()
            limit = rules.by_class.get(operation)
            if limit is not None and cost > 0:
                headers = await self._take(tenant, limit, cost)
            return Admission(await self._gate.enter(tenant.id, rules.requests), headers)
        except TenantFull:
            self._refused_by_tenant.inc()
            raise
        except ProcessFull:
            self._refused_by_process.inc()
            raise

    async def charge(self, tenant: Tenant, operation: Operation, cost: int = 1) -> None:
        """Takes from the tenant's rate alone, as for a message on a connection that has its place.

        Raises as `admit` does.
        """
        limit = self._rules(tenant).by_class.get(operation)
        if limit is not None and cost > 0:
            await self._take(tenant, limit, cost)

    async def _take(self, tenant: Tenant, limit: _Limit, cost: int) -> tuple[tuple[bytes, bytes], ...]:
        policy, part, header = limit
        if cost > policy.largest:
            raise PayloadTooLarge(
                f"The request counts as {cost}, and {policy.largest} may come at once: send it in parts."
            )
        if self._shared is None:
            verdict = self._buckets.take(tenant.id, part, cost)
        else:
            verdict = await self._shared.take(tenant.id, policy, part, cost)
        seconds = max(1, math.ceil(verdict.wait))
        state = f'"{policy.name}";r={verdict.remaining};t={seconds}'
        if verdict.allowed:
            return ((b"ratelimit-policy", header.encode()), (b"ratelimit", state.encode()))
        self._refused_by_rate.inc()
        raise RateLimited(
            "The tenant's limit is used up for the moment.",
            retry_after=seconds,
            headers={"RateLimit-Policy": header, "RateLimit": state},
        )

    def _rules(self, tenant: Tenant) -> _Rules:
        tier = self._directory.tier(tenant.tier)
        known = self._by_tier.get(tenant.tier)
        if known is None or known.tier is not tier:
            known = self._by_tier[tenant.tier] = self._compile(tier, known)
        return known

    def _compile(self, tier: Tier | None, known: _Rules | None) -> _Rules:
        limits = UNLIMITED
        if tier is not None:
            try:
                limits = read_limits(tier.limits)
            except msgspec.ValidationError as error:
                # Checked where it was written; should it come through all the same, what held before goes on to hold.
                log.critical("limits_not_read", tier=tier.name, version=tier.version, error=str(error))
                limits = known.limits if known is not None else UNLIMITED
        named = {name: self._limit(name, limits) for name in limits.requests}
        default = named.get(DEFAULT_CLASS)
        by_class = {
            operation.value: named.get(operation.value, None if operation.value in OUTSIDE_DEFAULT else default)
            for operation in Operation
        }
        return _Rules(
            tier,
            limits,
            requests=Share(limits.weight, limits.concurrency),
            connections=Share(limits.weight, limits.connections),
            by_class=by_class,
        )

    def _limit(self, name: str, limits: TenantLimits) -> _Limit:
        rate = limits.requests[name]
        policy = Policy.of(name, rate)
        window = max(1, math.ceil(policy.burst / policy.rate))
        return _Limit(
            policy,
            part=Policy.of(name, rate, share=self._replicas),
            header=f'"{name}";q={policy.burst // MICRO};w={window}',
        )

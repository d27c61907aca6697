"""Whether a request of a tenant may be worked on now, by what it is allowed and by what the process has room for."""

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
from tenantry.config import LIMITS, ConfigStore, Effective, Layer
from tenantry.limits._buckets import MICRO, Policy, TokenBuckets, Verdict
from tenantry.limits._document import DEFAULT_CLASS, OUTSIDE_DEFAULT, UNLIMITED, TenantLimits, read_limits
from tenantry.limits._fair_queue import Share
from tenantry.limits._gate import FairGate, Place, ProcessFull, TenantFull

log = structlog.get_logger(__name__)

_REFUSED: Final = Counter(
    "tenantry_limited_requests_total", "Requests that were not worked on for want of room.", ("service", "reason")
)
_MAX_KNOWN: Final = 4_096


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
    """What holds for a tenant, or for all of its tier and region, ready for use."""

    document: Effective
    limits: TenantLimits
    requests: Share
    connections: Share
    by_class: Mapping[str, _Limit | None]


class _Seen(NamedTuple):
    """What held when a tenant was last asked about, and what it was worked out from."""

    tenant: Tenant
    tier: Tier | None
    version: int
    rules: _Rules


class Limiter:
    """Judges by local state alone, so a changed limit holds from the next request on. Belongs to one event loop."""

    def __init__(
        self,
        service: str,
        directory: TenantDirectory,
        *,
        gate: FairGate,
        config: ConfigStore | None = None,
        replicas: int = 1,
        shared: SharedTake | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`gate` holds the places of this process. `replicas` is how many processes divide a rate among them.

        Limits are those of the tiers, and what the namespace `limits` of `config` says beside them.

        With `shared` buckets rates hold exactly over all processes, for a round trip each; `replicas` then says what
        each does alone while they are away.
        """
        self._directory = directory
        self._config = config if config is not None else ConfigStore()
        self._gate = gate
        self._replicas = replicas
        self._shared = shared
        self._buckets = TokenBuckets(monotonic_ns)
        self._seen: dict[UUID, _Seen] = {}
        # As the store shares its documents: by tenant where a tenant has limits of its own, else by region and tier.
        self._known: dict[tuple[str, str | None, str], _Rules] = {}
        self._refused_by_rate = _REFUSED.labels(service, "rate")
        self._refused_by_tenant = _REFUSED.labels(service, "concurrency")
        self._refused_by_process = _REFUSED.labels(service, "process")

    @property
    def buckets(self) -> TokenBuckets:
        """The buckets of this process."""
        return self._buckets

    def limits_of(self, tenant: Tenant) -> TenantLimits:
        """What the tenant may take now."""
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
        tier, version = self._directory.tier(tenant.tier), self._config.version
        seen = self._seen.get(tenant.id)
        # Asked twice a request, and nothing has changed nearly every time.
        if seen is not None and seen.tenant is tenant and seen.tier is tier and seen.version == version:
            return seen.rules
        rules = self._find(tenant, tier)
        if len(self._seen) >= _MAX_KNOWN:
            self._seen.clear()
        self._seen[tenant.id] = _Seen(tenant, tier, version, rules)
        return rules

    def _find(self, tenant: Tenant, tier: Tier | None) -> _Rules:
        document = self._config.effective(tenant, tier, LIMITS)
        own = str(tenant.id)
        place = (own if self._config.says(Layer.TENANT, own, LIMITS) else "", tenant.region, tenant.tier)
        known = self._known.get(place)
        if known is None or known.document is not document:
            if known is None and len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[place] = self._compile(document, self._read(document, known, tier))
        return known

    def _read(self, document: Effective, known: _Rules | None, tier: Tier | None) -> TenantLimits:
        try:
            return read_limits(document.document)
        except msgspec.ValidationError as error:
            # Checked where it was written; should it come through all the same, what held before goes on to hold.
            sources = sorted(
                {f"{source.layer} {source.name} {source.version}" for source in document.provenance.values()}
            )
            log.critical("limits_not_read", sources=sources, error=str(error))
        if known is not None:
            return known.limits
        try:
            return UNLIMITED if tier is None else read_limits(tier.limits)
        except msgspec.ValidationError:
            return UNLIMITED

    def _compile(self, document: Effective, limits: TenantLimits) -> _Rules:
        named = {name: self._limit(name, limits) for name in limits.requests}
        default = named.get(DEFAULT_CLASS)
        by_class = {
            operation.value: named.get(operation.value, None if operation.value in OUTSIDE_DEFAULT else default)
            for operation in Operation
        }
        return _Rules(
            document,
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

"""Request metrics of the busiest tenants by name; all others are one label."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import UUID

from prometheus_client import Counter

from tenantry.http._heavy_hitters import HeavyHitters

OTHER: Final = "other"
# How often labels may change: each that comes is a new series in whatever scrapes them.
WINDOW_SECONDS: Final = 60.0

_LABELS: Final = ("service", "tenant")
_REQUESTS: Final = Counter("tenant_requests_total", "Requests of the busiest tenants, and of the others.", _LABELS)
_ERRORS: Final = Counter("tenant_request_errors_total", "Those that were answered with 5xx.", _LABELS)
_LIMITED: Final = Counter("tenant_limited_requests_total", "Those that were answered with 429.", _LABELS)
_SECONDS: Final = Counter("tenant_request_seconds_total", "Time from first byte to last, summed.", _LABELS)
_ALL: Final = (_REQUESTS, _ERRORS, _LIMITED, _SECONDS)

_FAILED: Final = 500
_TOO_MANY: Final = 429


class _Counters(NamedTuple):
    requests: Counter
    errors: Counter
    limited: Counter
    seconds: Counter


class TenantMetrics:
    """At most `top` tenants have a label at any time, chosen anew each minute; every request counts under one label.

    A tenant that falls out takes its label along, and begins at 0 should it come back, which Prometheus takes for the
    restart of a counter. While there are fewer than `top` tenants each has its label at once.
    """

    def __init__(self, service: str, top: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._top = top
        self._monotonic = monotonic
        self._hitters = HeavyHitters(capacity=20 * top)
        self._named: dict[UUID, _Counters] = {}
        self._other = self._counters(OTHER)
        self._chosen_at = monotonic()

    def observe(self, tenant_id: UUID, status: int, seconds: float) -> None:
        """Counts one answered request."""
        self._hitters.add(tenant_id)
        now = self._monotonic()
        if now - self._chosen_at >= WINDOW_SECONDS:
            self._chosen_at = now
            self._choose()
        counters = self._named.get(tenant_id)
        if counters is None:
            counters = self._name(tenant_id) if len(self._named) < self._top else self._other
        counters.requests.inc()
        counters.seconds.inc(seconds)
        if status >= _FAILED:
            counters.errors.inc()
        elif status == _TOO_MANY:
            counters.limited.inc()

    def _choose(self) -> None:
        chosen = self._hitters.top(self._top, incumbents=self._named)
        for tenant_id in self._named.keys() - set(chosen):
            del self._named[tenant_id]
            for counter in _ALL:
                counter.remove(self._service, str(tenant_id))
        for tenant_id in chosen:
            if tenant_id not in self._named:
                self._name(tenant_id)
        self._hitters.age()

    def _name(self, tenant_id: UUID) -> _Counters:
        counters = self._named[tenant_id] = self._counters(str(tenant_id))
        return counters

    def _counters(self, tenant: str) -> _Counters:
        return _Counters(*(counter.labels(self._service, tenant) for counter in _ALL))

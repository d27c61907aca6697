"""Request metrics with bounded labels: the route's template, never the path, and the busiest tenants by name."""

from typing import Final
from uuid import UUID

from prometheus_client import Counter, Histogram

from tenantry.http._tenant_metrics import TenantMetrics

_REQUESTS: Final = Counter(
    "http_requests_total", "Requests that were answered.", ("service", "route", "method", "status")
)
_SECONDS: Final = Histogram(
    "http_request_duration_seconds",
    "Time from the request's first byte to the response's last.",
    ("service", "route", "method"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """The metrics of one service. Label children are looked up once: prometheus_client takes a lock for each."""

    def __init__(self, service: str, top_tenants: int = 0) -> None:
        """`top_tenants` is how many tenants have metrics of their own; 0 is none, and no `other`."""
        self._service = service
        self._tenants = TenantMetrics(service, top_tenants) if top_tenants else None
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one answered request; `status` 0 is one whose caller went away before the answer."""
        try:
            counter, histogram = self._children[route, method, status]
        except KeyError:
            counter, histogram = self._create(route, method, status)
        counter.inc()
        histogram.observe(seconds)

    def observe_tenant(self, tenant_id: UUID, status: int, seconds: float) -> None:
        """Counts the same request for its tenant."""
        if self._tenants is not None:
            self._tenants.observe(tenant_id, status, seconds)

    def _create(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        # A client may invent methods; a label value may not be invented.
        label = method if method in METHODS else "other"
        children = (
            _REQUESTS.labels(self._service, route, label, str(status)),
            _SECONDS.labels(self._service, route, label),
        )
        if label == method:
            self._children[route, method, status] = children
        return children

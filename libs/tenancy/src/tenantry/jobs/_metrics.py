"""What Prometheus is told of jobs."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from tenantry.jobs._queue import Backlog

OTHER: Final = "other"

_SECONDS: Final = Histogram(
    "tenantry_job_seconds",
    "How long attempts took, by how they ended.",
    ("service", "task", "outcome"),
    buckets=(0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800),
)
_WAITING: Final = Gauge(
    "tenantry_jobs_waiting",
    "Jobs that could run now, of the tenants with the most and of the others.",
    ("service", "tenant"),
)
_OLDEST: Final = Gauge(
    "tenantry_jobs_oldest_seconds", "For how long the oldest of them has waited.", ("service", "tenant")
)
_RUNNING: Final = Gauge("tenantry_jobs_running", "Jobs that run in this process.", ("service",))
_LOST: Final = Counter("tenantry_jobs_lost_total", "Jobs taken from workers that were not heard of.", ("service",))


class JobMetrics:
    """Of one service; `top` is how many tenants have a label of their own."""

    def __init__(self, service: str, top: int) -> None:
        self._service = service
        self._top = top
        self._named: set[str] = set()
        self.running = _RUNNING.labels(service)
        self.lost = _LOST.labels(service)

    def ended(self, task: str, outcome: str, seconds: float) -> None:
        """`task` is that of a declared one."""
        _SECONDS.labels(self._service, task, outcome).observe(seconds)

    def waiting(self, backlog: Iterable[Backlog]) -> None:
        """Takes the place of what was said before."""
        by_depth = sorted(backlog, key=lambda tenant: tenant.jobs, reverse=True)
        named = {str(tenant.tenant_id): (tenant.jobs, tenant.oldest) for tenant in by_depth[: self._top]}
        others = by_depth[self._top :]
        named[OTHER] = sum(tenant.jobs for tenant in others), max((tenant.oldest for tenant in others), default=0.0)
        for label in self._named - named.keys():
            _WAITING.remove(self._service, label)
            _OLDEST.remove(self._service, label)
        for label, (jobs, oldest) in named.items():
            _WAITING.labels(self._service, label).set(jobs)
            _OLDEST.labels(self._service, label).set(oldest)
        self._named = set(named)

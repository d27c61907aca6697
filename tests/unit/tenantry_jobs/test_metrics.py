"""Few tenants have a label of their own; those that fall out take it along."""

from uuid import UUID

from prometheus_client import REGISTRY

from tenantry.jobs._metrics import JobMetrics
from tenantry.jobs._queue import Backlog


def waiting(tenant):
    return REGISTRY.get_sample_value("tenantry_jobs_waiting", {"service": "shop", "tenant": tenant})


def oldest(tenant):
    return REGISTRY.get_sample_value("tenantry_jobs_oldest_seconds", {"service": "shop", "tenant": tenant})


def test_the_busiest_have_names_and_the_others_one():
    metrics = JobMetrics("shop", top=2)
    a, b, c, d = (UUID(int=n) for n in range(1, 5))
    metrics.waiting([Backlog(a, 1, 5.0), Backlog(b, 30, 1.0), Backlog(c, 20, 2.0), Backlog(d, 2, 9.0)])
    assert [waiting(str(each)) for each in (a, b, c, d)] == [None, 30, 20, None]
    assert (waiting("other"), oldest("other")) == (3, 9.0)
    metrics.waiting([Backlog(a, 7, 1.0)])
    assert [waiting(str(each)) for each in (a, b, c, d)] == [7, None, None, None]
    assert (waiting("other"), oldest("other")) == (0, 0.0)
    metrics.waiting([])
    assert waiting(str(a)) is None

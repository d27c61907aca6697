"""Tasks of Celery work for the tenant that published them: a real worker, one thread, one task after another."""

import uuid
from contextlib import contextmanager

import msgspec
import pytest
from celery import Celery, chain
from celery.contrib.testing.worker import start_worker

from tenantry import (
    LocalDirectory,
    NoTenant,
    Operation,
    TenantNotFound,
    TenantStatus,
    TenantSuspended,
    current_tenant,
    current_tenant_or_none,
    tenant_scope,
)
from tenantry.celery import TENANT_HEADER, carry_tenants
from tenantry.testing import TenantFactory


class Product:
    """An application of Celery with the tasks of these tests."""

    def __init__(self, directory):
        self.directory = directory
        self.app = carry_tenants(Celery("product", broker="memory://", backend="cache+memory://"), directory)
        self.app.conf.update(task_default_queue=f"q-{uuid.uuid4().hex}")

        @self.app.task(shared=False)
        def whose(before=()):
            return [*before, str(current_tenant().id)]

        @self.app.task(shared=False)
        def fails():
            raise ZeroDivisionError

        @self.app.task(shared=False, bind=True, max_retries=1, retry_backoff=False)
        def twice(task):
            if task.request.retries == 0:
                raise task.retry(countdown=0)
            return str(current_tenant().id)

        @self.app.task(shared=False)
        def publishes():
            return whose.delay().id

        @self.app.task(shared=False, tenantless=True)
        def sweep():
            known = current_tenant_or_none()
            return None if known is None else str(known.id)

        self.whose, self.fails, self.twice, self.publishes, self.sweep = whose, fails, twice, publishes, sweep

    @contextmanager
    def worker(self):
        with start_worker(self.app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
            yield


# A worker takes seconds to start and to stop, so one serves all the tests.
@pytest.fixture(scope="module")
def tenant_a():
    return TenantFactory()(slug="tenant-a")


@pytest.fixture(scope="module")
def tenant_b():
    return TenantFactory()(slug="tenant-b")


@pytest.fixture(scope="module")
def directory(tenant_a, tenant_b):
    return LocalDirectory.of([tenant_a, tenant_b])


@pytest.fixture(scope="module")
def product(directory):
    product = Product(directory)
    with product.worker():
        yield product


def test_tasks_of_two_tenants_in_one_thread(product, tenant_a, tenant_b):
    published = []
    for n in range(40):
        tenant = tenant_a if n % 3 else tenant_b
        with tenant_scope(tenant):
            published.append((tenant, product.whose.delay()))
            if n % 5 == 0:
                product.fails.delay()
    for tenant, result in published:
        assert result.get(timeout=20) == [str(tenant.id)]
    assert product.sweep.delay().get(timeout=20) is None, "nothing of the last task is left"


def test_a_task_without_a_tenant_is_refused_unless_it_says_so(product, tenant_a):
    with tenant_scope(tenant_a):
        product.whose.delay().get(timeout=20)
    with pytest.raises(NoTenant):
        product.whose.delay().get(timeout=20)
    assert product.sweep.delay().get(timeout=20) is None
    with tenant_scope(tenant_a):
        assert product.sweep.delay().get(timeout=20) is None


def test_what_follows_a_task_keeps_its_tenant(product, tenant_a, tenant_b):
    for tenant in (tenant_a, tenant_b):
        with tenant_scope(tenant):
            chained = chain(product.whose.s(), product.whose.s(), product.whose.s()).delay()
            again = product.twice.delay()
            nested = product.publishes.delay()
        assert chained.get(timeout=20) == [str(tenant.id)] * 3
        assert again.get(timeout=20) == str(tenant.id)
        inner = product.app.AsyncResult(nested.get(timeout=20))
        assert inner.get(timeout=20) == [str(tenant.id)]


def test_a_tenant_is_admitted_when_the_task_runs(product, directory, tenant_a):
    def becomes(**changes):
        known = directory.get(tenant_a.id)
        directory.upsert(msgspec.structs.replace(known, **changes, version=known.version + 1))

    becomes(status=TenantStatus.SUSPENDED, blocked=(Operation.JOBS,))
    with tenant_scope(tenant_a):
        refused = product.whose.delay()
    with pytest.raises(TenantSuspended):
        refused.get(timeout=20)
    becomes(status=TenantStatus.ACTIVE, blocked=())
    with tenant_scope(tenant_a):
        assert product.whose.delay().get(timeout=20) == [str(tenant_a.id)]


@pytest.mark.parametrize("reference", ["01a1fed6-d4ba-73ac-8263-689d0b1c5bf0", "not an id", ""])
def test_a_header_that_names_nobody_is_refused(product, reference):
    with pytest.raises((TenantNotFound, NoTenant)):
        product.whose.apply_async(headers={TENANT_HEADER: reference}).get(timeout=20)


def test_a_call_in_the_same_process_works_for_the_caller(directory, tenant_a):
    product = Product(directory)
    with pytest.raises(NoTenant):
        product.whose()
    with tenant_scope(tenant_a):
        assert product.whose() == [str(tenant_a.id)]
        product.app.conf.task_always_eager = True
        assert product.whose.delay().get() == [str(tenant_a.id)]

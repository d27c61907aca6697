"""Where the events of a subject go, and what is remembered of it."""

from __future__ import annotations

import gc
import json
import sys
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from tenantry import LocalDirectory, ManualClock, Operation, TenantStatus
from usage_service.domain.intake import read_body
from usage_service.domain.splitting import Form
from usage_service.ingest.routes import RouteTable

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


@pytest.fixture
def directory():
    return LocalDirectory(ready=True)


def table_of(directory, **options) -> RouteTable:
    table = RouteTable(directory, ManualClock(NOW), Operation.INGEST, **options)
    table.at()
    return table


def batch(*subjects: str) -> bytes:
    named = {"specversion": "1.0", "source": "app", "type": "t", "time": "2026-11-21T09:00:00Z", "data": {}}
    return json.dumps([{**named, "id": f"{n}", "subject": subject} for n, subject in enumerate(subjects)]).encode()


def kinds(table, *subjects) -> list[str | None]:
    routes = [table.resolve(subject) for subject in subjects]
    return [None if route.refusal is None else route.refusal.kind for route in routes]


def test_what_is_refused_again_and_again_is_not_kept(directory, tenant_factory):
    """An exception that is raised anew has the frames of all its raises, and they have the bodies."""
    suspended = tenant_factory(status=TenantStatus.SUSPENDED, blocked=(Operation.INGEST,))
    directory.upsert(suspended)
    table = table_of(directory)
    body = batch(str(suspended.id), "nobody", str(uuid4()))
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(body)
        for resolve in (table.resolve, table.resolve_own(uuid4())):
            for _ in range(3):
                assert len(read_body(body, Form.ARRAY, resolve, max_events=10).refused) == 3
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()


def test_only_what_names_a_tenant_as_it_is_usually_written_is_remembered(directory, tenant_factory):
    tenant = tenant_factory(external_id="acme")
    directory.upsert(tenant)
    table = table_of(directory)
    text = str(tenant.id)
    odd = [text[:-number].upper() + text[-number:] for number in range(1, 20)]
    strangers = [f"nobody-{number}" for number in range(1_000)]
    spellings = [text, text.upper(), "acme"]
    assert set(kinds(table, *strangers, str(uuid4()))) == {"unknown-tenant"}
    assert {table.resolve(subject).subject for subject in [*spellings, *odd]} == {text}
    assert set(table._routes) == set(spellings)
    assert table.resolve("acme") is table.resolve("acme")


def test_a_tenant_that_comes_or_goes_is_heard_of_with_the_next_request(directory, tenant_factory):
    tenant = tenant_factory()
    table = table_of(directory)
    assert kinds(table, str(tenant.id)) == ["unknown-tenant"]
    directory.upsert(tenant)
    table.at()
    assert kinds(table, str(tenant.id)) == [None]
    directory.remove(tenant.id)
    table.at()
    assert kinds(table, str(tenant.id)) == ["unknown-tenant"]


def test_a_tenant_of_another_region_is_refused_where_both_are_known(directory, tenant_factory):
    pinned, free = tenant_factory(region="eu"), tenant_factory()
    for tenant in (pinned, free):
        directory.upsert(tenant)
    subjects = (str(pinned.id), str(free.id))
    assert kinds(table_of(directory, region="us"), *subjects) == ["residency-violation", None]
    assert kinds(table_of(directory, region="eu"), *subjects) == [None, None]
    assert kinds(table_of(directory), *subjects) == [None, None]


def test_a_table_for_another_thread_shares_nothing(directory, tenant_factory):
    tenant = tenant_factory(region="eu")
    directory.upsert(tenant)
    table = table_of(directory, region="us")
    table.resolve(str(tenant.id))
    other = table.anew()
    assert not other._routes
    other.at()
    assert kinds(other, str(tenant.id)) == ["residency-violation"]

"""Our own services, as a stranger sees them."""

import asyncpg
import pytest

from tenantry.database._url import dsn
from tenantry.doctor import Grade, Options, examine


@pytest.mark.parametrize("service", ["tenant", "usage", "billing", "app"])
async def test_no_way_between_tenants_is_found_in_a_service(service_database, service):
    database = service_database(service)
    report = await examine(database.urls.service)
    assert report.column == "tenant_id"
    assert [role.name for role in report.app_roles][:1] == [f"{service}_service"]
    assert [finding.key for finding in report.findings if finding.rule.grade is Grade.ISOLATION] == []


@pytest.mark.parametrize("service", ["tenant", "usage", "billing", "app"])
async def test_workers_that_run_meanwhile_are_left_out_where_the_role_of_requests_is_named(service_database, service):
    urls = service_database(service).urls
    worker = await asyncpg.connect(dsn(urls.system))
    try:
        report = await examine(urls.service, Options(app_roles=(f"{service}_service",)))
    finally:
        await worker.close()
    assert [finding.key for finding in report.findings if finding.rule.grade is Grade.ISOLATION] == []
    unclear = [finding.fix for finding in report.findings if finding.rule_id == "TD701"]
    assert all(fix.endswith('ADD COLUMN "tenant_id" uuid') for fix in unclear)
    assert unclear or service != "tenant"


async def test_serving_requests_as_the_system_role_is_found(service_database):
    report = await examine(service_database("app").urls.system)
    assert "TD204:pool.document policy system_access" in [finding.key for finding in report.findings]


async def test_serving_requests_as_the_migrator_is_found(service_database):
    report = await examine(service_database("app").urls.migrator)
    assert "TD103:app_migrator in app_owner" in [finding.key for finding in report.findings]

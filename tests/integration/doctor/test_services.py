"""Our own services, as a stranger sees them."""

import pytest

from tenantry.doctor import Grade, examine


@pytest.mark.parametrize("service", ["tenant", "usage", "billing", "app"])
async def test_no_way_between_tenants_is_found_in_a_service(service_database, service):
    database = service_database(service)
    report = await examine(database.urls.service)
    assert report.column == "tenant_id"
    assert [role.name for role in report.app_roles][:1] == [f"{service}_service"]
    assert [finding.key for finding in report.findings if finding.rule.grade is Grade.ISOLATION] == []


async def test_serving_requests_as_the_system_role_is_found(service_database):
    report = await examine(service_database("app").urls.system)
    assert "TD204:pool.document policy system_access" in [finding.key for finding in report.findings]


async def test_serving_requests_as_the_migrator_is_found(service_database):
    report = await examine(service_database("app").urls.migrator)
    assert "TD103:app_migrator in app_owner" in [finding.key for finding in report.findings]

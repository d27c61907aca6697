"""Every table of the usage and the billing service, swept with a row of two tenants in each."""

import pytest
from planted_rows import plant

from billing_service.catalogue import CATALOGUE as BILLING
from tenantry.testing import sweep_catalogue
from usage_service.data_catalogue import CATALOGUE as USAGE

EMPTY = {"system.idempotency_key": "only requests write there"}


@pytest.mark.parametrize("catalogue", [USAGE, BILLING], ids=lambda catalogue: catalogue.service)
async def test_a_bound_session_sees_its_own_rows_only(service_database, catalogue, tenant_a, tenant_b):
    database = service_database(catalogue.service)
    if catalogue is USAGE:
        # As the service does: a partition that the administrator makes belongs to the administrator.
        async with database.connect("migrator") as connection:
            await connection.execute("SET ROLE usage_owner")
            await connection.execute("SELECT system.ensure_usage_days(ARRAY[(now() AT TIME ZONE 'UTC')::date])")
    async with database.connect() as connection:
        _, planted = [await plant(connection, catalogue, tenant.id) for tenant in (tenant_a, tenant_b)]
    async with database.databases(follow_placement=False) as databases:
        report = await sweep_catalogue(
            catalogue, database, databases, tenant_a, tenant_b, words=[planted.word], empty=EMPTY
        )
    assert {f"pool.{table}" for table in catalogue.tenant_tables} <= report.tried.keys()

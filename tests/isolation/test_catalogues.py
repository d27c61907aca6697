"""Every database is what its data catalogue says, and the audit sees it when one is not."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app_service.models import CATALOGUE as APP
from billing_service.catalogue import CATALOGUE as BILLING
from tenant_service.catalogue import CATALOGUE as TENANT
from tenantry import Isolation
from tenantry.database import tenant_database
from usage_service.data_catalogue import CATALOGUE as USAGE

CATALOGUES = {catalogue.service: catalogue for catalogue in (TENANT, USAGE, BILLING, APP)}


async def audit(catalogue, url, *faults):
    """The findings after `faults` were made, as the administrator, in a transaction that is rolled back."""
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.connect() as connection:
            for statement in faults:
                await connection.execute(text(statement))
            findings = await catalogue.audit(connection)
            await connection.rollback()
    finally:
        await engine.dispose()
    return findings


def administrator(database, name=None):
    return database.admin_url.rpartition("/")[0] + "/" + (name or database.name)


@pytest.mark.parametrize("service", CATALOGUES)
async def test_the_database_is_what_its_catalogue_says(service_database, service):
    database = service_database(service)
    assert await audit(CATALOGUES[service], administrator(database)) == []


async def test_the_places_of_tenants_are_too(world):
    for tenant in (world.a, world.b):
        name = tenant_database("app", tenant.id) if world.isolation is Isolation.DATABASE else None
        assert await audit(APP, administrator(world.database, name)) == []


async def test_the_audit_sees_a_column_that_references_tenants_by_another_name(service_database):
    fault = "ALTER TABLE system.signing_key ADD COLUMN of_whom uuid REFERENCES system.tenant (id)"
    (finding,) = await audit(TENANT, administrator(service_database("tenant")), fault)
    assert finding == "system.signing_key: of_whom references tenants, and the data catalogue does not say so"


# What is done, and what is said of it.
FAULTS = {
    "is not in the data catalogue": ["CREATE TABLE {s}.forgotten (tenant_id uuid)"],
    "tenant_id names tenants, and the data catalogue does not say so": [
        "ALTER TABLE system.consumer_offset ADD COLUMN tenant_id uuid"
    ],
    "does not FORCE row level security": ["ALTER TABLE {s}.document NO FORCE ROW LEVEL SECURITY"],
    "does not ENABLE row level security": ["ALTER TABLE {s}.document DISABLE ROW LEVEL SECURITY"],
    "has another policy, more": ["CREATE POLICY more ON {s}.document USING (true)"],
    "has no policy tenant_isolation": ["DROP POLICY tenant_isolation ON {s}.document"],
    "policy tenant_isolation is not as generated": ["ALTER POLICY tenant_isolation ON {s}.document USING (true)"],
    "is granted to app_service: TRUNCATE": ["GRANT TRUNCATE ON {s}.document TO app_service"],
    "is granted to PUBLIC: SELECT": ["GRANT SELECT ON {s}.document TO PUBLIC"],
    "leaves out tenant_id": ["ALTER TABLE {s}.document ADD CONSTRAINT one UNIQUE (id)"],
    "is a view without security_invoker": ["CREATE VIEW {s}.all_documents AS SELECT * FROM {s}.document"],
    "does not pair the tenant columns": [
        "ALTER TABLE {s}.document ADD CONSTRAINT one UNIQUE (id)",
        "ALTER TABLE {s}.document_file ADD FOREIGN KEY (document_id) REFERENCES {s}.document (id)",
    ],
}


@pytest.mark.parametrize("said", FAULTS)
async def test_the_audit_sees(world, said):
    name = tenant_database("app", world.b.id) if world.isolation is Isolation.DATABASE else None
    statements = [statement.format(s=world.schema(world.b)) for statement in FAULTS[said]]
    findings = await audit(APP, administrator(world.database, name), *statements)
    assert any(said in finding for finding in findings), findings

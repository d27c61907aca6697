"""T23: no role of the service changes the trail, and a change by somebody mightier is named."""

import asyncpg
import pytest


@pytest.mark.parametrize("role", ["service", "system", "backup"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE system.audit_entry SET actor = 'nobody'",
        "DELETE FROM system.audit_entry",
        "TRUNCATE system.audit_entry",
        "ALTER TABLE system.audit_entry DISABLE ROW LEVEL SECURITY",
    ],
)
async def test_no_role_of_the_service_changes_an_entry(people, role, statement):
    await people.tenant()
    async with people.database.connect(role) as connection:
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
            await connection.execute(statement)


async def test_a_grant_by_mistake_changes_nothing(people):
    tenant_id = await people.tenant()
    trail = await people.trail(tenant_id)
    async with people.database.connect() as owner, people.database.connect("system") as connection:
        await owner.execute("GRANT UPDATE, DELETE ON system.audit_entry TO tenant_system")
        try:
            assert await connection.execute("UPDATE system.audit_entry SET actor = 'nobody'") == "UPDATE 0"
            assert await connection.execute("DELETE FROM system.audit_entry") == "DELETE 0"
        finally:
            await owner.execute("REVOKE UPDATE, DELETE ON system.audit_entry FROM tenant_system")
    assert await people.trail(tenant_id) == trail


async def test_one_changed_byte_is_named(people):
    tenant_id, other = await people.tenant(), await people.tenant()
    assert (await people.http.get(f"/v1/tenants/{tenant_id}/audit/verify")).json()["ok"] is True
    await people.rows(
        "UPDATE system.audit_entry SET content_hash = set_byte(content_hash, 31, get_byte(content_hash, 31) # 1)"
        " WHERE chain_id = $1 AND position = 2",
        tenant_id,
    )

    found = (await people.http.get(f"/v1/tenants/{tenant_id}/audit/verify")).json()

    assert [(each["chain_id"], each["position"]) for each in found["broken"]] == [(tenant_id, 2)]
    assert (await people.http.get(f"/v1/tenants/{other}/audit/verify")).json()["ok"] is True

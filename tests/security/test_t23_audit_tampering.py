"""T23: no role of the service changes the trail, and a change by somebody mightier is named."""

import json

import asyncpg
import pytest

from tenant_service.domain.audit_chain import Entry, content_hash


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


FLIPPED = "set_byte({0}, 31, get_byte({0}, 31) # 1)"
CONTENT_2 = "WHERE chain_id = $1 AND position = 2"
# What somebody does who may do anything, and the position of the entry that it is found at.
CHANGES = {
    "the content": (f"UPDATE system.audit_entry SET actor = 'nobody' {CONTENT_2}", 2),
    "the hash of the content": (
        f"UPDATE system.audit_entry SET content_hash = {FLIPPED.format('content_hash')} {CONTENT_2}",
        2,
    ),
    "the link": (f"UPDATE system.audit_entry SET hash = {FLIPPED.format('hash')} {CONTENT_2}", 2),
    "an entry is gone": (f"DELETE FROM system.audit_entry {CONTENT_2}", 2),
    "the last one is gone": (
        """
        DELETE FROM system.audit_entry e USING system.audit_chain c
         WHERE e.chain_id = $1 AND c.chain_id = $1 AND e.position = c.length
        """,
        None,
    ),
    "the end": (f"UPDATE system.audit_chain SET head = {FLIPPED.format('head')} WHERE chain_id = $1", None),
}


@pytest.mark.parametrize("changed", CHANGES)
async def test_one_changed_byte_is_named(people, changed):
    tenant_id, other = await people.tenant(), await people.tenant()
    assert (await people.http.get(f"/v1/tenants/{tenant_id}/audit/verify")).json()["ok"] is True
    last = len(await people.trail(tenant_id))
    assert last > 2
    statement, position = CHANGES[changed]
    await people.rows(statement, tenant_id)

    found = (await people.http.get(f"/v1/tenants/{tenant_id}/audit/verify")).json()

    assert [(each["chain_id"], each["position"]) for each in found["broken"]] == [(tenant_id, position or last)]
    assert (await people.http.get(f"/v1/tenants/{other}/audit/verify")).json()["ok"] is True


async def test_content_that_was_changed_with_its_hash_does_not_follow(people):
    """The link is over the hash: whoever writes both anew has to write every link after it anew, and the end."""
    tenant_id = await people.tenant()
    (row,) = await people.rows(f"SELECT {', '.join(Entry.__slots__)} FROM system.audit_entry {CONTENT_2}", tenant_id)
    documents = {name: json.loads(row[name]) for name in ("detail", "context")}
    changed = Entry(**{name: row[name] for name in Entry.__slots__} | documents | {"actor": "nobody"})
    await people.rows(
        f"UPDATE system.audit_entry SET actor = 'nobody', content_hash = $2 {CONTENT_2}",
        tenant_id,
        content_hash(changed),
    )

    found = (await people.http.get(f"/v1/tenants/{tenant_id}/audit/verify")).json()

    assert [each["position"] for each in found["broken"]] == [2]


async def test_an_erasure_excuses_nothing_but_what_it_names(people):
    """The function that replaces details is not enough: an entry of the chain has to have the hash of what it wrote."""
    tenant_id = await people.tenant()
    path = f"/v1/tenants/{tenant_id}/audit"
    assert (await people.http.post(f"{path}/erasures", json={"values": ["nobody"]})).status_code == 201
    assert (await people.http.get(f"{path}/verify")).json()["ok"] is True
    async with people.database.connect("system") as connection:
        await connection.execute(
            "SELECT system.replace_audit_details($1, ARRAY[2]::bigint[], ARRAY['{\"forged\": 1}'])", tenant_id
        )

    found = (await people.http.get(f"{path}/verify")).json()

    assert [each["position"] for each in found["broken"]] == [2]

"""The generated statements."""

import pytest

from tenantry.database import RoleNames, TenantColumn, immutable_table, shared_table, system_table, tenant_table

ROLES = RoleNames("shelf")
IS_TENANT = """"tenant_id" = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)"""


def test_a_tenant_table_has_row_level_security_its_policies_and_grants():
    assert tenant_table("book", ROLES) == [
        'ALTER TABLE "book" ENABLE ROW LEVEL SECURITY',
        'ALTER TABLE "book" FORCE ROW LEVEL SECURITY',
        (
            'CREATE POLICY tenant_isolation ON "book" AS PERMISSIVE FOR ALL TO "shelf_service" '
            f"USING ({IS_TENANT}) WITH CHECK ({IS_TENANT})"
        ),
        'CREATE POLICY system_access ON "book" AS PERMISSIVE FOR ALL TO "shelf_system" USING (true) WITH CHECK (true)',
        'CREATE POLICY backup_read ON "book" AS PERMISSIVE FOR SELECT TO "tenantry_backup" USING (true)',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON "book" TO "shelf_service"',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON "book" TO "shelf_system"',
        'GRANT SELECT ON "book" TO "tenantry_backup"',
    ]


def test_the_setting_is_cast_to_the_declared_type():
    column = TenantColumn("owner", "bigint", setting="app.owner")
    policy = tenant_table("pool.book", ROLES, column=column)[2]
    assert """"owner" = (SELECT NULLIF(current_setting('app.owner', true), '')::bigint)""" in policy
    assert '"pool"."book"' in policy


@pytest.mark.parametrize("statement", immutable_table("loan", ROLES))
def test_nobody_may_change_an_immutable_table(statement):
    assert not (statement.startswith("GRANT") and ("UPDATE" in statement or "DELETE" in statement))


def test_the_service_role_gets_of_a_system_table_what_is_said():
    assert not any("shelf_service" in statement for statement in system_table("system.job", ROLES))
    assert 'GRANT INSERT ON "system"."job" TO "shelf_service"' in system_table("system.job", ROLES, service=("INSERT",))
    assert 'GRANT SELECT ON "system"."job" TO "shelf_service"' in shared_table("system.job", ROLES)


@pytest.mark.parametrize("privilege", ["TRUNCATE", "REFERENCES", "TRIGGER", "ALL"])
def test_privileges_that_bypass_policies_are_refused(privilege):
    with pytest.raises(ValueError, match=privilege):
        tenant_table("book", ROLES, service=("SELECT", privilege))


def test_identifiers_are_quoted():
    assert all('"bo""ok"' in statement for statement in tenant_table('bo"ok', ROLES))

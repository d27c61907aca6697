"""Details of audit entries give way where a person is erased: by a function, and nothing else."""

from alembic import op

from tenantry.database import RoleNames

revision = "0016_erased_audit"
down_revision = "0015_routing"
branch = "system"

ROLES = RoleNames("tenant")

# The table is closed to its owner too, with whose rights the function works; a grant to others still changes nothing.
STATEMENTS = (
    f"CREATE POLICY owner_read ON system.audit_entry FOR SELECT TO {ROLES.owner} USING (true)",
    f"CREATE POLICY owner_erase ON system.audit_entry FOR UPDATE TO {ROLES.owner} USING (true)",
    """
    CREATE FUNCTION system.replace_audit_details(chain uuid, positions bigint[], details text[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        UPDATE system.audit_entry AS entry SET detail = CAST(given.detail AS jsonb)
          FROM unnest(positions, details) AS given (position, detail)
         WHERE entry.chain_id = chain AND entry.position = given.position
    $$
    """,
    "REVOKE ALL ON FUNCTION system.replace_audit_details(uuid, bigint[], text[]) FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION system.replace_audit_details(uuid, bigint[], text[]) TO {ROLES.system}",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION system.replace_audit_details(uuid, bigint[], text[])")
    for policy in ("owner_read", "owner_erase"):
        op.execute(f"DROP POLICY {policy} ON system.audit_entry")

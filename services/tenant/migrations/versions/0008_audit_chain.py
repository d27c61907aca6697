"""The hash chain of the audit trail."""

from itertools import groupby

from alembic import op
from sqlalchemy import text

from tenant_service.domain.audit_chain import Entry, before_the_first, content_hash, link
from tenantry.database import RoleNames

revision = "0008_audit_chain"
down_revision = "0007_members"
branch = "system"

ROLES = RoleNames("tenant")

COLUMNS = (
    "ALTER TABLE system.audit_entry ADD COLUMN impersonator text",
    "ALTER TABLE system.audit_entry ADD COLUMN context jsonb NOT NULL DEFAULT '{}'",
    "ALTER TABLE system.audit_entry ADD COLUMN content_hash bytea",
    "ALTER TABLE system.audit_entry ADD COLUMN hash bytea",
    "ALTER TABLE system.audit_chain ADD COLUMN head bytea",
)

COMPLETE = (
    "ALTER TABLE system.audit_entry ALTER COLUMN context DROP DEFAULT",
    "ALTER TABLE system.audit_entry ALTER COLUMN content_hash SET NOT NULL",
    "ALTER TABLE system.audit_entry ALTER COLUMN hash SET NOT NULL",
    "ALTER TABLE system.audit_chain ALTER COLUMN head SET NOT NULL",
    "CREATE INDEX ix_audit_entry_occurred_at ON system.audit_entry (chain_id, occurred_at)",
)

# Grants say who may try, policies what exists to try: with no policy for UPDATE and DELETE, a grant that somebody adds
# by mistake changes nothing.
PROTECT = (
    "ALTER TABLE system.audit_entry ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE system.audit_entry FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY system_read ON system.audit_entry FOR SELECT TO {ROLES.system} USING (true)",
    f"CREATE POLICY system_append ON system.audit_entry FOR INSERT TO {ROLES.system} WITH CHECK (true)",
    f"CREATE POLICY backup_read ON system.audit_entry FOR SELECT TO {ROLES.backup} USING (true)",
)


def upgrade() -> None:
    for statement in COLUMNS:
        op.execute(statement)
    _hash_what_is_there()
    for statement in (*COMPLETE, *PROTECT):
        op.execute(statement)


def _hash_what_is_there() -> None:
    connection = op.get_bind()
    rows = connection.execute(text("SELECT * FROM system.audit_entry ORDER BY chain_id, position")).mappings().all()
    for chain_id, entries in groupby(rows, key=lambda row: row["chain_id"]):
        head = before_the_first(chain_id)
        for row in entries:
            content = content_hash(Entry(**{name: row[name] for name in Entry.__slots__}))
            head = link(head, row["position"], content)
            connection.execute(
                text("UPDATE system.audit_entry SET content_hash = :content, hash = :hash WHERE id = :id"),
                {"content": content, "hash": head, "id": row["id"]},
            )
        connection.execute(
            text("UPDATE system.audit_chain SET head = :head WHERE chain_id = :id"), {"head": head, "id": chain_id}
        )


def downgrade() -> None:
    for policy in ("system_read", "system_append", "backup_read"):
        op.execute(f"DROP POLICY {policy} ON system.audit_entry")
    op.execute("ALTER TABLE system.audit_entry NO FORCE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE system.audit_entry DISABLE ROW LEVEL SECURITY")
    for column in ("impersonator", "context", "content_hash", "hash"):
        op.execute(f"ALTER TABLE system.audit_entry DROP COLUMN {column}")
    op.execute("ALTER TABLE system.audit_chain DROP COLUMN head")

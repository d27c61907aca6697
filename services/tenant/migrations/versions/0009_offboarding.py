"""Exports, purges and their certificates."""

from alembic import op

from tenantry.database import RoleNames, system_table
from tenantry.offboarding import offboarding_tables

revision = "0009_offboarding"
down_revision = "0008_audit_chain"
branch = "system"

ROLES = RoleNames("tenant")

CERTIFICATE = """
    CREATE TABLE system.purge_certificate (
        tenant_id uuid NOT NULL CONSTRAINT pk_purge_certificate PRIMARY KEY
            CONSTRAINT fk_purge_certificate_tenant_id_tenant REFERENCES system.tenant (id),
        document jsonb NOT NULL,
        digest text NOT NULL,
        created_at timestamptz NOT NULL
    )
"""


def upgrade() -> None:
    grants = system_table("system.purge_certificate", ROLES, system=("SELECT", "INSERT"))
    for statement in (*offboarding_tables(ROLES), CERTIFICATE, *grants):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.purge_certificate")
    op.execute("DROP TABLE system.offboarding_table, system.offboarding_request, system.offboarding_task")

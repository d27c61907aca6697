"""Tokens of other issuers that are refused before their end."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0012_token_revocations"
down_revision = "0011_limits_namespace"
branch = "system"

TABLE = """
    CREATE TABLE system.token_revocation (
        id uuid NOT NULL CONSTRAINT pk_token_revocation PRIMARY KEY,
        tenant_id uuid CONSTRAINT fk_token_revocation_tenant_id_tenant REFERENCES system.tenant (id),
        issuer text NOT NULL,
        subject text NOT NULL,
        not_before timestamptz NOT NULL,
        reason text NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        created_by text NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT uq_token_revocation_tenant_id_issuer_subject UNIQUE NULLS NOT DISTINCT (tenant_id, issuer, subject)
    )
"""


def upgrade() -> None:
    index = "CREATE INDEX ix_token_revocation_expires_at ON system.token_revocation (expires_at)"
    for statement in (TABLE, index, *system_table("system.token_revocation", RoleNames("tenant"))):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.token_revocation")

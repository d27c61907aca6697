"""The vault: tokens that stand for values of events, and who has read them back."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0010_tokens"
down_revision = "0010_erasure"
branch = "tenant"

ROLES = RoleNames("usage")
READ = ("SELECT",)

TABLES = {
    # A value has one token in a tenant, whichever process met it first. `value_hash` stands for it in the index.
    "token": """
    CREATE TABLE token (
        tenant_id uuid NOT NULL,
        token text NOT NULL,
        value_hash bytea NOT NULL,
        value text NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT pk_token PRIMARY KEY (tenant_id, token),
        CONSTRAINT uq_token_value UNIQUE (tenant_id, value_hash)
    )
    """,
    "token_reading": """
    CREATE TABLE token_reading (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        token text NOT NULL,
        read_by text NOT NULL,
        read_at timestamptz NOT NULL,
        CONSTRAINT pk_token_reading PRIMARY KEY (tenant_id, id)
    )
    """,
}


def upgrade() -> None:
    for table, statement in TABLES.items():
        op.execute(statement)
        for grant in tenant_table(table, ROLES, service=READ):
            op.execute(grant)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")

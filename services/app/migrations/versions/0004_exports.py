"""Archives of everything that a tenant has, until they expire."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0004_exports"
down_revision = "0001_documents"
branch = "tenant"

_TABLES = {
    "export": """
        CREATE TABLE export (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL,
            job_id bigint NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            finished_at timestamptz,
            documents bigint NOT NULL,
            files bigint NOT NULL,
            size bigint NOT NULL,
            sha256 bytea,
            CONSTRAINT pk_export PRIMARY KEY (tenant_id, id),
            CONSTRAINT ck_export_finished CHECK ((finished_at IS NULL) = (sha256 IS NULL))
        )
    """,
    "export_chunk": """
        CREATE TABLE export_chunk (
            tenant_id uuid NOT NULL,
            export_id uuid NOT NULL,
            position integer NOT NULL,
            data bytea NOT NULL,
            CONSTRAINT pk_export_chunk PRIMARY KEY (tenant_id, export_id, position),
            CONSTRAINT fk_export_chunk_tenant_id_export FOREIGN KEY (tenant_id, export_id)
                REFERENCES export (tenant_id, id) ON DELETE CASCADE
        )
    """,
}


def upgrade() -> None:
    roles = RoleNames("app")
    for table, statement in _TABLES.items():
        op.execute(statement)
        for grant in tenant_table(table, roles):
            op.execute(grant)
    op.execute("ALTER TABLE export_chunk ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("DROP TABLE export_chunk, export")

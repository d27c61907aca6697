"""Documents, their files, and what the files take."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0001_documents"
down_revision = None
branch_labels = None
depends_on = None
branch = "tenant"

_TABLES = {
    # No index on `search`: the policy is a security barrier that `@@` (not leakproof) may not pass, so PostgreSQL
    # would never use one. The key on the tenant bounds a search to the tenant's own rows.
    "document": """
        CREATE TABLE document (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL,
            title text NOT NULL,
            body text NOT NULL,
            tags text[] NOT NULL,
            version bigint NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            search tsvector NOT NULL GENERATED ALWAYS AS (
                setweight(to_tsvector('simple'::regconfig, title), 'A')
                || setweight(array_to_tsvector(tags), 'B')
                || setweight(to_tsvector('simple'::regconfig, body), 'C')
            ) STORED,
            CONSTRAINT pk_document PRIMARY KEY (tenant_id, id)
        )
    """,
    "document_file": """
        CREATE TABLE document_file (
            tenant_id uuid NOT NULL,
            document_id uuid NOT NULL,
            name text NOT NULL,
            content_id uuid NOT NULL,
            content_type text NOT NULL,
            size bigint NOT NULL,
            sha256 bytea NOT NULL,
            version bigint NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT pk_document_file PRIMARY KEY (tenant_id, document_id, name),
            CONSTRAINT uq_document_file_tenant_id UNIQUE (tenant_id, content_id),
            CONSTRAINT fk_document_file_tenant_id_document FOREIGN KEY (tenant_id, document_id)
                REFERENCES document (tenant_id, id) ON DELETE CASCADE,
            CONSTRAINT ck_document_file_size CHECK (size >= 0)
        )
    """,
    "file_chunk": """
        CREATE TABLE file_chunk (
            tenant_id uuid NOT NULL,
            content_id uuid NOT NULL,
            position integer NOT NULL,
            data bytea NOT NULL,
            CONSTRAINT pk_file_chunk PRIMARY KEY (tenant_id, content_id, position),
            CONSTRAINT fk_file_chunk_tenant_id_document_file FOREIGN KEY (tenant_id, content_id)
                REFERENCES document_file (tenant_id, content_id) ON DELETE CASCADE
        )
    """,
    "storage_total": """
        CREATE TABLE storage_total (
            tenant_id uuid NOT NULL,
            bytes bigint NOT NULL,
            changed_at timestamptz NOT NULL,
            CONSTRAINT pk_storage_total PRIMARY KEY (tenant_id),
            CONSTRAINT ck_storage_total_bytes CHECK (bytes >= 0)
        )
    """,
}


def upgrade() -> None:
    roles = RoleNames("app")
    for table, statement in _TABLES.items():
        op.execute(statement)
        for grant in tenant_table(table, roles):
            op.execute(grant)
    # Files are mostly compressed already: a second pass costs time and saves nothing.
    op.execute("ALTER TABLE file_chunk ALTER COLUMN data SET STORAGE EXTERNAL")

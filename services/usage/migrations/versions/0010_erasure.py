"""Erasures of one person inside a tenant: what was asked, how far it is, and what was found where."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0010_erasure"
down_revision = "0012_entitled"
branch = "tenant"

ROLES = RoleNames("usage")
READ = ("SELECT",)

TABLES = {
    # `pseudonyms`, by value, are there until the erasure is done; what remains of the values then is `hashes`, under
    # `salt`. `days` are those that are left, `cursor` the archive's object or the letter that came last.
    "erasure": """
    CREATE TABLE erasure (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        step text NOT NULL,
        asked_by text NOT NULL,
        asked_at timestamptz NOT NULL,
        salt bytea NOT NULL,
        hashes jsonb NOT NULL,
        paths jsonb,
        attributes boolean NOT NULL,
        telling_meters jsonb NOT NULL,
        pseudonyms jsonb,
        days jsonb,
        days_planned integer,
        cursor uuid,
        look_at timestamptz,
        problem text,
        finished_at timestamptz,
        CONSTRAINT pk_erasure PRIMARY KEY (tenant_id, id),
        CONSTRAINT ck_forgotten CHECK (step <> 'done' OR pseudonyms IS NULL)
    )
    """,
    "erasure_place": """
    CREATE TABLE erasure_place (
        tenant_id uuid NOT NULL,
        erasure_id uuid NOT NULL,
        place text NOT NULL,
        rows bigint NOT NULL,
        CONSTRAINT pk_erasure_place PRIMARY KEY (tenant_id, erasure_id, place)
    )
    """,
}
INDEXES = (
    "CREATE INDEX ix_erasure_look_at ON erasure (look_at) WHERE look_at IS NOT NULL",
    "CREATE INDEX ix_erasure_id ON erasure (id)",
)


def upgrade() -> None:
    for table, statement in TABLES.items():
        op.execute(statement)
        for grant in tenant_table(table, ROLES, service=READ):
            op.execute(grant)
    for statement in INDEXES:
        op.execute(statement)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")

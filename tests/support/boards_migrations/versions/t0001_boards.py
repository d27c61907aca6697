"""The tables of the product under test, and a view."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "t0001"
down_revision = None
branch = "tenant"

TABLES = (
    """
    CREATE TABLE board (
        tenant_id uuid, id uuid, name text NOT NULL, purpose text NOT NULL,
        PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, name)
    )
    """,
    """
    CREATE TABLE card (
        tenant_id uuid, id uuid, board_id uuid NOT NULL, title text NOT NULL, body text NOT NULL,
        PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, board_id) REFERENCES board (tenant_id, id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE tally (
        tenant_id uuid, name text, version bigint NOT NULL, points bigint NOT NULL, note text NOT NULL,
        PRIMARY KEY (tenant_id, name)
    )
    """,
)


def upgrade() -> None:
    roles = RoleNames("boards")
    for statement in TABLES:
        op.execute(statement)
    for name in ("board", "card", "tally"):
        for statement in tenant_table(name, roles):
            op.execute(statement)
    op.execute("CREATE VIEW titles WITH (security_invoker = true) AS SELECT tenant_id, id, title FROM card")
    op.execute(f"GRANT SELECT ON titles TO {roles.service}")

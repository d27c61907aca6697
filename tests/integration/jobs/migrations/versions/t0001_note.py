"""What the jobs of the tests leave behind."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "t0001"
down_revision = None
branch = "tenant"


def upgrade():
    op.execute("CREATE TABLE note (tenant_id uuid, id uuid, body text NOT NULL, PRIMARY KEY (tenant_id, id))")
    for statement in tenant_table("note", RoleNames("notes")):
        op.execute(statement)

"""The backbone and one table of the service itself."""

from alembic import op

from tenantry.database import RoleNames, backbone_tables, shared_table

revision = "s0001"
down_revision = None
branch = "system"


def upgrade():
    roles = RoleNames("shelf")
    for statement in backbone_tables(roles):
        op.execute(statement)
    op.execute("CREATE TABLE system.language (code text PRIMARY KEY)")
    for statement in shared_table("system.language", roles):
        op.execute(statement)

"""What the library needs in every service's database."""

from alembic import op

from tenantry.database import RoleNames, backbone_tables

revision = "s0001"
down_revision = None
branch = "system"


def upgrade() -> None:
    for statement in backbone_tables(RoleNames("boards")):
        op.execute(statement)

"""Places that are made ahead of the tenants."""

from alembic import op

from tenantry.database import RoleNames, warm_place_table

revision = "0002_warm_places"
down_revision = "0001_backbone"
branch = "system"


def upgrade() -> None:
    for statement in warm_place_table(RoleNames("app")):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.warm_place")

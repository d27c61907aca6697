"""Exports and purges of tenants' data."""

from alembic import op

from tenantry.database import RoleNames
from tenantry.offboarding import offboarding_tables

revision = "0004"
down_revision = "0003"
branch = "system"


def upgrade() -> None:
    for statement in offboarding_tables(RoleNames("billing")):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.offboarding_table, system.offboarding_request, system.offboarding_task")

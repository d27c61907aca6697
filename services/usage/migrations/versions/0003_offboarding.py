"""Exports and purges of tenants' data."""

from alembic import op

from tenantry.database import RoleNames
from tenantry.offboarding import offboarding_tables

revision = "0003_offboarding"
down_revision = "0001_metering"
branch = "system"


def upgrade() -> None:
    for statement in offboarding_tables(RoleNames("usage")):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.offboarding_table, system.offboarding_request, system.offboarding_task")

"""The queue of jobs."""

from alembic import op

from tenantry.database import RoleNames
from tenantry.jobs import job_tables

revision = "0004_jobs"
down_revision = "0003_offboarding"
branch = "system"


def upgrade() -> None:
    for statement in job_tables(RoleNames("app")):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA jobs CASCADE")

"""What the library needs in the database of a service with jobs."""

from alembic import op

from tenantry.database import RoleNames, backbone_tables
from tenantry.jobs import job_tables

revision = "s0001"
down_revision = None
branch = "system"


def upgrade():
    for statement in (*backbone_tables(RoleNames("notes")), *job_tables(RoleNames("notes"))):
        op.execute(statement)

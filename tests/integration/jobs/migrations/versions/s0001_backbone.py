"""What the library needs in the database of a service with jobs."""

from alembic import op

from tenantry.database import RoleNames, backbone_tables
from tenantry.jobs import job_tables
from tenantry.offboarding import offboarding_tables

revision = "s0001"
down_revision = None
branch = "system"


def upgrade():
    roles = RoleNames("notes")
    for statement in (*backbone_tables(roles), *offboarding_tables(roles), *job_tables(roles)):
        op.execute(statement)

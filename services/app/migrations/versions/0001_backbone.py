"""The tables of the backbone: outbox, offsets, idempotency keys."""

from alembic import op

from tenantry.database import RoleNames, backbone_tables

revision = "0001_backbone"
down_revision = None
branch_labels = None
depends_on = None
branch = "system"


def upgrade() -> None:
    for statement in backbone_tables(RoleNames("app")):
        op.execute(statement)

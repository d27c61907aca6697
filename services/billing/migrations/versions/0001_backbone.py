"""Outbox, consumer offsets, idempotency keys and the bind function that every service has."""

from alembic import op

from tenantry.database import RoleNames, backbone_tables

revision = "0001"
down_revision = None
branch = "system"


def upgrade() -> None:
    for statement in backbone_tables(RoleNames("billing")):
        op.execute(statement)

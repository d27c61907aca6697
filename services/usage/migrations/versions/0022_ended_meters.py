"""How far days have ended by meter: what one has lost says nothing of another, whose hours a quota may keep."""

from alembic import op

revision = "0022_ended_meters"
down_revision = "0021_event_times"
branch = "tenant"

# A row from before this is of all meters of its tenant: their id is nil.
STATEMENTS = (
    "ALTER TABLE ended_rollup ADD COLUMN meter_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'",
    "ALTER TABLE ended_rollup ALTER COLUMN meter_id DROP DEFAULT",
    "ALTER TABLE ended_rollup DROP CONSTRAINT pk_ended_rollup",
    "ALTER TABLE ended_rollup ADD CONSTRAINT pk_ended_rollup PRIMARY KEY (tenant_id, meter_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute(
        "DELETE FROM ended_rollup AS ended USING ended_rollup AS later"
        " WHERE later.tenant_id = ended.tenant_id AND (later.until, later.meter_id) > (ended.until, ended.meter_id)"
    )
    op.execute("ALTER TABLE ended_rollup DROP CONSTRAINT pk_ended_rollup")
    op.execute("ALTER TABLE ended_rollup DROP COLUMN meter_id")
    op.execute("ALTER TABLE ended_rollup ADD CONSTRAINT pk_ended_rollup PRIMARY KEY (tenant_id)")

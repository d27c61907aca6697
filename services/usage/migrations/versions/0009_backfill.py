"""Meters that count what was stored before them: from when on, and how far that is."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0009_backfill"
down_revision = "0008_gone_days"
branch = "system"

ROLES = RoleNames("usage")

# `backfill_from` belongs to a meter's first version. What is older than `incomplete_until`, and not before
# `backfill_from`, is not counted wholly yet: questions about a meter read it with the meter.
METER = """
ALTER TABLE system.meter
    ADD COLUMN backfill_from timestamptz,
    ADD COLUMN incomplete_until timestamptz
"""
# A row counts the events of [first_time, last_time) that were stored before the meter was made, from the last day to
# the first: all from `reached` on is done. Of `day` the tenants up to `after_tenant` are done, and `hours` of the next.
# What it counts of [first_time, unmatched_until) that was stored before the version `unmatched_before` of the catalogue
# had been listed as unmatched; it is taken off the list here and by no other row.
BACKFILL = """
CREATE TABLE system.meter_backfill (
    meter_id uuid NOT NULL CONSTRAINT fk_meter_backfill_meter_id_meter REFERENCES system.meter (id),
    first_time timestamptz NOT NULL,
    last_time timestamptz NOT NULL,
    unmatched_until timestamptz NOT NULL,
    unmatched_before bigint NOT NULL,
    state text NOT NULL CONSTRAINT ck_state CHECK (state IN ('waiting', 'running', 'settling', 'finished')),
    reached timestamptz NOT NULL,
    day date,
    after_tenant uuid NOT NULL,
    hours smallint NOT NULL,
    days integer,
    days_done integer NOT NULL,
    events bigint NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT pk_meter_backfill PRIMARY KEY (meter_id, first_time)
)
"""
UNFINISHED = "CREATE INDEX ix_meter_backfill_unfinished ON system.meter_backfill (created_at) WHERE state <> 'finished'"


def upgrade() -> None:
    for statement in (METER, BACKFILL, UNFINISHED, *system_table("system.meter_backfill", ROLES)):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.meter_backfill")
    op.execute("ALTER TABLE system.meter DROP COLUMN backfill_from, DROP COLUMN incomplete_until")

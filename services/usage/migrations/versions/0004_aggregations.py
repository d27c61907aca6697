"""The states of latest, unique_count and time_weighted: what an hour adds to its rollup, and its different values."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0004_aggregations"
down_revision = "0002_usage"
branch = "tenant"

ROLES = RoleNames("usage")
READ = ("SELECT",)

# Empty for the other aggregations, and the row's header does not grow by them. `integral` is in value-microseconds,
# from `first_time` to `latest_time`.
COLUMNS = """
ALTER TABLE usage_rollup
    ADD COLUMN latest_received_at timestamptz,
    ADD COLUMN first_time timestamptz,
    ADD COLUMN uniques bigint
"""

# The last state of each series before an instant. Only series have a first time, so no other meter pays for it.
SERIES = """
CREATE INDEX ix_usage_rollup_series ON usage_rollup (tenant_id, meter_id, group_hash, window_start)
    WHERE first_time IS NOT NULL
"""

# A value once an hour and group, as 16 bytes of its hash: whole hours of any range are a count of different hashes.
UNIQUE_VALUES = """
CREATE TABLE usage_unique_value (
    tenant_id uuid NOT NULL,
    meter_id uuid NOT NULL,
    window_start timestamptz NOT NULL,
    group_hash uuid NOT NULL,
    value_hash uuid NOT NULL,
    CONSTRAINT pk_usage_unique_value PRIMARY KEY (tenant_id, meter_id, window_start, group_hash, value_hash)
)
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(SERIES)
    op.execute(UNIQUE_VALUES)
    for grant in tenant_table("usage_unique_value", ROLES, service=READ):
        op.execute(grant)


def downgrade() -> None:
    op.execute("DROP TABLE usage_unique_value")
    op.execute("DROP INDEX ix_usage_rollup_series")
    op.execute("ALTER TABLE usage_rollup DROP COLUMN latest_received_at, DROP COLUMN first_time, DROP COLUMN uniques")

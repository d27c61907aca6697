"""When the hours and the days of rollups of a day ended."""

from alembic import op

revision = "0010_ended_hours"
down_revision = "0011_spread_tenants"
branch = "system"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE system.usage_day ADD COLUMN hours_ended_at timestamptz, ADD COLUMN days_ended_at timestamptz"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE system.usage_day DROP COLUMN hours_ended_at, DROP COLUMN days_ended_at")

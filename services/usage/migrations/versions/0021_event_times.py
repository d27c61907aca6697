"""Block ranges of the times of raw events, so that an hour of a large tenant is not looked for in its whole day."""

from alembic import op

revision = "0021_event_times"
down_revision = "0017_terms_of_periods"
branch = "tenant"


def upgrade() -> None:
    op.execute(
        """
        CREATE INDEX ix_usage_event_time ON usage_event USING brin (event_time timestamptz_minmax_multi_ops)
          WITH (pages_per_range = 16, autosummarize = on)
        """
    )


def downgrade() -> None:
    op.execute("DROP INDEX ix_usage_event_time")

"""What adjusts closed periods, and from when a tenant is billed.

`changed_at` finds the hours that changed since a period's usage was last looked at; what was copied before there was
such a column counts as changed now. A line that names a period of its own adjusts that period.
"""

from alembic import op

revision = "t0002"
down_revision = "t0001"
branch = "tenant"

STATEMENTS = (
    "ALTER TABLE standing ADD COLUMN bill_from timestamptz",
    "ALTER TABLE usage_rollup ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()",
    "ALTER TABLE usage_rollup ALTER COLUMN changed_at SET DEFAULT clock_timestamp()",
    "CREATE INDEX usage_rollup_changed ON usage_rollup (tenant_id, changed_at)",
    "ALTER TABLE billed_period ADD COLUMN usage_seen_at timestamptz NOT NULL DEFAULT '-infinity'",
    "ALTER TABLE invoice_line ADD COLUMN period_from timestamptz, ADD COLUMN period_to timestamptz",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE standing DROP COLUMN bill_from")
    op.execute("ALTER TABLE usage_rollup DROP COLUMN changed_at")
    op.execute("ALTER TABLE billed_period DROP COLUMN usage_seen_at")
    op.execute("ALTER TABLE invoice_line DROP COLUMN period_from, DROP COLUMN period_to")

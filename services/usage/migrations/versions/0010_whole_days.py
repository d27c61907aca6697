"""Rollups of whole days, which take the place of hours when those end, and how far days have ended."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0010_whole_days"
down_revision = "0010_tokens"
branch = "tenant"

ROLES = RoleNames("usage")
READ = ("SELECT",)

# A row of a whole day stands at its midnight (UTC) and has the state of all its hours: what adds up rollups of a range
# of whole days need not know. The ranges of blocks find a day among years of rows, and cost a writer nothing.
STATEMENTS = (
    "ALTER TABLE usage_rollup ADD COLUMN whole_day boolean NOT NULL DEFAULT false",
    "CREATE INDEX ix_usage_rollup_window ON usage_rollup USING brin (window_start)",
    "CREATE INDEX ix_usage_unique_value_window ON usage_unique_value USING brin (window_start)",
    # What a tenant had counted before `until` has ended, days included.
    """
    CREATE TABLE ended_rollup (
        tenant_id uuid NOT NULL CONSTRAINT pk_ended_rollup PRIMARY KEY,
        until date NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    for grant in tenant_table("ended_rollup", ROLES, service=READ):
        op.execute(grant)


def downgrade() -> None:
    op.execute("DROP TABLE ended_rollup")
    op.execute("DROP INDEX ix_usage_unique_value_window, ix_usage_rollup_window")
    op.execute("ALTER TABLE usage_rollup DROP COLUMN whole_day")

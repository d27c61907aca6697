"""What tenants have by their tier and plan, alerts that are withdrawn, and alerts of what is not counted."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0012_entitled"
down_revision = "0008_corrections"
branch = "tenant"

ROLES = RoleNames("usage")
READ = ("SELECT",)

TABLES = {
    # One row for a tenant, none for its features: what it has is worked out from the tier's document and `plans`.
    # `metered` are the features that `plans` give a quota of.
    "entitled_tenant": """
    CREATE TABLE entitled_tenant (
        tenant_id uuid NOT NULL CONSTRAINT pk_entitled_tenant PRIMARY KEY,
        tier text,
        tenant_version bigint NOT NULL DEFAULT -1,
        plans jsonb NOT NULL DEFAULT '[]',
        billing_version bigint NOT NULL DEFAULT -1,
        metered text[] NOT NULL DEFAULT '{}'
    )
    """,
    # One row for each day on which something was not counted; `number` is given when it is told.
    "not_counted": """
    CREATE TABLE not_counted (
        tenant_id uuid NOT NULL,
        day date NOT NULL,
        kind text NOT NULL,
        reason text NOT NULL,
        count bigint NOT NULL,
        number bigint,
        CONSTRAINT pk_not_counted PRIMARY KEY (tenant_id, day, kind, reason)
    )
    """,
}
STATEMENTS = (
    "CREATE INDEX ix_entitled_tenant_tier ON entitled_tenant (tier)",
    "CREATE INDEX ix_entitled_tenant_metered ON entitled_tenant (tenant_id) WHERE metered <> '{}'",
    "CREATE INDEX ix_not_counted_untold ON not_counted (day) WHERE number IS NULL",
    # A quota that a tier or a plan gives is kept from its first use on, so that its past limits stay known.
    """
    ALTER TABLE quota
        ADD COLUMN given_by text NOT NULL DEFAULT 'override',
        ADD COLUMN rollover_max numeric NOT NULL DEFAULT 0,
        ADD COLUMN refill text
    """,
    """
    ALTER TABLE entitlement_alert
        ADD COLUMN raised boolean NOT NULL DEFAULT true,
        ADD COLUMN sequence bigint NOT NULL DEFAULT 1,
        ADD COLUMN resets_at timestamptz
    """,
)


def upgrade() -> None:
    for table, statement in TABLES.items():
        op.execute(statement)
        for grant in tenant_table(table, ROLES, service=READ):
            op.execute(grant)
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DELETE FROM quota WHERE given_by <> 'override'")
    op.execute("ALTER TABLE quota DROP COLUMN given_by, DROP COLUMN rollover_max, DROP COLUMN refill")
    op.execute("ALTER TABLE entitlement_alert DROP COLUMN raised, DROP COLUMN sequence, DROP COLUMN resets_at")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")

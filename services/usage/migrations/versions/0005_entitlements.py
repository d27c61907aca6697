"""What tenants may use: quotas with their limits and grants, features, and the balances and alerts that follow."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0005_entitlements"
down_revision = "0004_aggregations"
branch = "tenant"

ROLES = RoleNames("usage")
READ = ("SELECT",)

TABLES = {
    # Periods are counted from `anchored_at` in `time_zone`; usage counts from `since` on.
    "quota": """
    CREATE TABLE quota (
        tenant_id uuid NOT NULL,
        feature text NOT NULL,
        meter text NOT NULL,
        interval text NOT NULL,
        time_zone text NOT NULL,
        anchored_at timestamptz NOT NULL,
        since timestamptz NOT NULL,
        hard boolean NOT NULL,
        pays_overage boolean NOT NULL,
        preserve_overage boolean NOT NULL,
        alerts jsonb NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT pk_quota PRIMARY KEY (tenant_id, feature)
    )
    """,
    # One row for each change: what a period that is over had as its limit stays known.
    "quota_limit": """
    CREATE TABLE quota_limit (
        tenant_id uuid NOT NULL,
        feature text NOT NULL,
        since timestamptz NOT NULL,
        amount numeric,
        CONSTRAINT pk_quota_limit PRIMARY KEY (tenant_id, feature, since)
    )
    """,
    "quota_grant": """
    CREATE TABLE quota_grant (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        feature text NOT NULL,
        amount numeric NOT NULL,
        priority integer NOT NULL,
        effective_at timestamptz NOT NULL,
        expires_at timestamptz,
        voided_at timestamptz,
        rollover_min numeric NOT NULL,
        rollover_max numeric,
        recurrence text,
        recurs_from timestamptz,
        time_zone text NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT pk_quota_grant PRIMARY KEY (tenant_id, id)
    )
    """,
    # What a tenant has of a feature that is not metered.
    "feature_access": """
    CREATE TABLE feature_access (
        tenant_id uuid NOT NULL,
        feature text NOT NULL,
        enabled boolean NOT NULL,
        config jsonb,
        version bigint NOT NULL,
        CONSTRAINT pk_feature_access PRIMARY KEY (tenant_id, feature)
    )
    """,
    # What was last published of a quota or a feature. `next_turn` is when it changes without any usage.
    "entitlement_balance": """
    CREATE TABLE entitlement_balance (
        tenant_id uuid NOT NULL,
        feature text NOT NULL,
        document text NOT NULL,
        version bigint NOT NULL,
        next_turn timestamptz,
        CONSTRAINT pk_entitlement_balance PRIMARY KEY (tenant_id, feature)
    )
    """,
    # One row for each alert that was given: its key is why none is given twice.
    "entitlement_alert": """
    CREATE TABLE entitlement_alert (
        tenant_id uuid NOT NULL,
        feature text NOT NULL,
        period_start timestamptz NOT NULL,
        threshold numeric NOT NULL,
        number bigint NOT NULL,
        crossed_at timestamptz NOT NULL,
        CONSTRAINT pk_entitlement_alert PRIMARY KEY (tenant_id, feature, period_start, threshold)
    )
    """,
}
INDEXES = (
    "CREATE INDEX ix_quota_meter ON quota (tenant_id, meter)",
    "CREATE INDEX ix_quota_grant_feature ON quota_grant (tenant_id, feature, id)",
    "CREATE INDEX ix_entitlement_balance_next_turn ON entitlement_balance (next_turn) WHERE next_turn IS NOT NULL",
)


def upgrade() -> None:
    for table, statement in TABLES.items():
        op.execute(statement)
        for grant in tenant_table(table, ROLES, service=READ):
            op.execute(grant)
    for statement in INDEXES:
        op.execute(statement)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")

"""Tenants whose events lie under several keys, and what tenants send."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0011_spread_tenants"
down_revision = "0012_tiers"
branch = "system"

ROLES = RoleNames("usage")

TABLES = (
    # Mixed while `mixed_since` says since when: records of any key may come. Otherwise every record has the key of
    # `buckets`, but for events of days up to `mixed_until`.
    """
    CREATE TABLE system.spread_tenant (
        tenant_id uuid NOT NULL CONSTRAINT pk_spread_tenant PRIMARY KEY,
        buckets integer NOT NULL CONSTRAINT ck_buckets CHECK (buckets >= 1),
        mixed_since timestamptz,
        mixed_until date
    )
    """,
    # Samples of what was received; of tenants that send little there are none.
    """
    CREATE TABLE system.tenant_rate (
        tenant_id uuid NOT NULL,
        received_from timestamptz NOT NULL,
        events bigint NOT NULL,
        CONSTRAINT pk_tenant_rate PRIMARY KEY (tenant_id, received_from)
    )
    """,
    "CREATE INDEX ix_tenant_rate_received_from ON system.tenant_rate (received_from)",
)
# Under which key a parked record stood. Those from before the column stood under their tenant's id, as all did.
PARKED_KEY = "ALTER TABLE system.parked_record ADD COLUMN key bytea"


def upgrade() -> None:
    for statement in (*TABLES, PARKED_KEY):
        op.execute(statement)
    for table in ("spread_tenant", "tenant_rate"):
        for statement in system_table(f"system.{table}", ROLES):
            op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE system.parked_record DROP COLUMN key")
    op.execute("DROP TABLE system.tenant_rate, system.spread_tenant")

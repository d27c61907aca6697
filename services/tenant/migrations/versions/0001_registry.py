"""The registry of tenants: tiers, test clocks, tenants, and the trail of what was done to them."""

from alembic import op

from tenantry.database import RoleNames, backbone_tables, system_table

revision = "0001_registry"
down_revision = None
branch = "system"

ROLES = RoleNames("tenant")
APPEND = ("SELECT", "INSERT")
NO_DELETE = ("SELECT", "INSERT", "UPDATE")

TABLES = (
    """
    CREATE TABLE system.tier (
        name text NOT NULL CONSTRAINT pk_tier PRIMARY KEY,
        version bigint NOT NULL,
        max_event_age_seconds bigint,
        limits jsonb NOT NULL,
        entitlements jsonb NOT NULL,
        isolation text NOT NULL,
        published boolean NOT NULL,
        updated_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE system.tier_version (
        name text NOT NULL CONSTRAINT fk_tier_version_name_tier REFERENCES system.tier (name),
        version bigint NOT NULL,
        max_event_age_seconds bigint,
        limits jsonb NOT NULL,
        entitlements jsonb NOT NULL,
        isolation text NOT NULL,
        created_at timestamptz NOT NULL,
        created_by text NOT NULL,
        CONSTRAINT pk_tier_version PRIMARY KEY (name, version)
    )
    """,
    """
    CREATE TABLE system.test_clock (
        id uuid NOT NULL CONSTRAINT pk_test_clock PRIMARY KEY,
        now_at timestamptz NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE system.tenant (
        id uuid NOT NULL CONSTRAINT pk_tenant PRIMARY KEY,
        external_id text CONSTRAINT uq_tenant_external_id UNIQUE,
        slug text NOT NULL CONSTRAINT uq_tenant_slug UNIQUE,
        name text NOT NULL,
        status text NOT NULL,
        suspension_reasons text[] NOT NULL,
        read_only boolean NOT NULL,
        tier text NOT NULL CONSTRAINT fk_tenant_tier_tier REFERENCES system.tier (name),
        region text,
        isolation text NOT NULL,
        store text,
        placement_epoch bigint,
        test_clock_id uuid CONSTRAINT fk_tenant_test_clock_id_test_clock REFERENCES system.test_clock (id),
        admin_email text NOT NULL,
        plan text,
        metadata jsonb NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        activated_at timestamptz
    )
    """,
    "CREATE INDEX ix_tenant_status ON system.tenant (status, id)",
    "CREATE INDEX ix_tenant_tier ON system.tenant (tier, id)",
    "CREATE INDEX ix_tenant_test_clock_id ON system.tenant (test_clock_id) WHERE test_clock_id IS NOT NULL",
    """
    CREATE TABLE system.audit_chain (
        chain_id uuid NOT NULL CONSTRAINT pk_audit_chain PRIMARY KEY,
        length bigint NOT NULL
    )
    """,
    """
    CREATE TABLE system.audit_entry (
        chain_id uuid NOT NULL,
        position bigint NOT NULL,
        id uuid NOT NULL CONSTRAINT uq_audit_entry_id UNIQUE,
        occurred_at timestamptz NOT NULL,
        actor text NOT NULL,
        actor_kind text NOT NULL,
        credential_id text NOT NULL,
        action text NOT NULL,
        target text NOT NULL,
        detail jsonb NOT NULL,
        request_id text,
        CONSTRAINT pk_audit_entry PRIMARY KEY (chain_id, position)
    )
    """,
)

GRANTS = {
    "system.tier": NO_DELETE,
    "system.tier_version": APPEND,
    "system.test_clock": NO_DELETE,
    "system.tenant": NO_DELETE,
    "system.audit_chain": NO_DELETE,
    "system.audit_entry": APPEND,
}

# Events may be 35 days old (rules of counting, 7); nothing else is limited until somebody says so. It is published to
# the other services when the tenant service starts.
STANDARD_TIER = (
    """
    INSERT INTO system.tier
        (name, version, max_event_age_seconds, limits, entitlements, isolation, published, updated_at)
    VALUES ('standard', 1, 35 * 86400, '{}', '{}', 'pool', false, now())
    """,
    """
    INSERT INTO system.tier_version
    SELECT name, version, max_event_age_seconds, limits, entitlements, isolation, updated_at, 'migration'
    FROM system.tier
    """,
)


def upgrade() -> None:
    statements = [*backbone_tables(ROLES), *TABLES]
    for table, privileges in GRANTS.items():
        statements += system_table(table, ROLES, system=privileges)
    for statement in [*statements, *STANDARD_TIER]:
        op.execute(statement)


def downgrade() -> None:
    for table in ("audit_entry", "audit_chain", "tenant", "test_clock", "tier_version", "tier"):
        op.execute(f"DROP TABLE system.{table}")

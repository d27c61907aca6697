"""What belongs to tenants: raw events by day, hour rollups, dead letters, and types that no meter knows."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0002_usage"
down_revision = None
branch = "tenant"

ROLES = RoleNames("usage")
READ = ("SELECT",)

TABLES = {
    # The key is the identity and not the id: 16 bytes keep the index small. `data` is the JSON text as it was received;
    # it is parsed where it is read, so that no event is parsed twice on its way in.
    "usage_event": """
    CREATE TABLE usage_event (
        tenant_id uuid NOT NULL,
        identity uuid NOT NULL,
        event_time timestamptz NOT NULL,
        received_at timestamptz NOT NULL,
        kafka_offset bigint NOT NULL,
        digest bigint NOT NULL,
        catalogue_version bigint NOT NULL,
        day date NOT NULL,
        kafka_partition integer NOT NULL,
        source text NOT NULL,
        event_id text NOT NULL,
        type text NOT NULL,
        data text NOT NULL,
        CONSTRAINT pk_usage_event PRIMARY KEY (tenant_id, identity, day)
    ) PARTITION BY RANGE (day)
    """,
    # Absolute, mergeable state of one hour (UTC). Which columns a meter fills depends on its aggregation. Three tenths
    # of a page stay free so that an update finds room beside the row and no index changes.
    "usage_rollup": """
    CREATE TABLE usage_rollup (
        tenant_id uuid NOT NULL,
        meter_id uuid NOT NULL,
        window_start timestamptz NOT NULL,
        group_hash uuid NOT NULL,
        version bigint NOT NULL,
        count bigint NOT NULL,
        latest_time timestamptz,
        latest_offset bigint,
        latest_partition integer,
        groups text NOT NULL,
        sum numeric,
        minimum numeric,
        maximum numeric,
        latest numeric,
        integral numeric,
        CONSTRAINT pk_usage_rollup PRIMARY KEY (tenant_id, meter_id, window_start, group_hash)
    ) WITH (fillfactor = 70)
    """,
    # Events, or parts of them, that could not count, with the reason. Rows without a tenant have the nil UUID, which no
    # tenant has: only the operator sees them.
    "dead_letter": """
    CREATE TABLE dead_letter (
        tenant_id uuid NOT NULL,
        id uuid NOT NULL,
        kind text NOT NULL,
        reason text NOT NULL,
        meter_id uuid,
        type text,
        source text,
        event_id text,
        kafka_partition integer NOT NULL,
        kafka_offset bigint NOT NULL,
        received_at timestamptz NOT NULL,
        payload bytea NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT pk_dead_letter PRIMARY KEY (tenant_id, id)
    )
    """,
    "unmatched_type": """
    CREATE TABLE unmatched_type (
        tenant_id uuid NOT NULL,
        type text NOT NULL,
        count bigint NOT NULL,
        first_received_at timestamptz NOT NULL,
        last_received_at timestamptz NOT NULL,
        CONSTRAINT pk_unmatched_type PRIMARY KEY (tenant_id, type)
    )
    """,
}


def upgrade() -> None:
    for table, statement in TABLES.items():
        op.execute(statement)
        for grant in tenant_table(table, ROLES, service=READ):
            op.execute(grant)

"""What the usage service keeps for itself: meters, the queue of changed rollups, cuts, parked records, and days."""

from alembic import op

from tenantry.database import RoleNames, backbone_tables, shared_table, system_table

revision = "0001_metering"
down_revision = None
branch = "system"

ROLES = RoleNames("usage")

TABLES = (
    # One row. Its version rises with every change of a meter; a worker that finds another one than it has reloads.
    """
    CREATE TABLE system.meter_catalogue (
        single boolean NOT NULL DEFAULT true CONSTRAINT pk_meter_catalogue PRIMARY KEY
               CONSTRAINT ck_single CHECK (single),
        version bigint NOT NULL
    )
    """,
    # A row is a version of a meter: it counts the events stored under the catalogue versions [since, until).
    """
    CREATE TABLE system.meter (
        id uuid NOT NULL CONSTRAINT pk_meter PRIMARY KEY,
        slug text NOT NULL,
        version integer NOT NULL,
        event_type text NOT NULL,
        aggregation text NOT NULL,
        value text,
        group_by jsonb NOT NULL,
        filter jsonb NOT NULL,
        unit text NOT NULL,
        since bigint NOT NULL,
        until bigint,
        created_at timestamptz NOT NULL,
        CONSTRAINT uq_meter_slug_version UNIQUE (slug, version)
    )
    """,
    # The keys of the rollups that one batch changed, one row a lane: an append in the batch's transaction costs a tenth
    # of marking each rollup. The relay publishes what the rollups hold when it reads them, then deletes the row.
    """
    CREATE TABLE system.rollup_change (
        lane smallint NOT NULL,
        id uuid NOT NULL,
        tenant_ids uuid[] NOT NULL,
        meter_ids uuid[] NOT NULL,
        window_starts timestamptz[] NOT NULL,
        group_hashes uuid[] NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_rollup_change PRIMARY KEY (lane, id)
    )
    """,
    # Up to which receipt time a partition of usage.events.v1 is counted; the least of them is the watermark.
    """
    CREATE TABLE system.partition_progress (
        partition integer NOT NULL CONSTRAINT pk_partition_progress PRIMARY KEY,
        received_until timestamptz NOT NULL
    )
    """,
    # Records of tenants that the directory does not know yet, for a minute.
    """
    CREATE TABLE system.parked_record (
        partition integer NOT NULL,
        "offset" bigint NOT NULL,
        tenant_id uuid NOT NULL,
        value bytea NOT NULL,
        received_at timestamptz NOT NULL,
        parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_parked_record PRIMARY KEY (partition, "offset")
    )
    """,
    """
    CREATE TABLE system.cut (
        id uuid NOT NULL CONSTRAINT pk_cut PRIMARY KEY,
        state text NOT NULL CONSTRAINT ck_state CHECK (state IN ('waiting', 'covered', 'published')),
        offsets jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        covered_at timestamptz,
        published_at timestamptz
    )
    """,
    "CREATE INDEX ix_cut_open ON system.cut (created_at) WHERE state <> 'published'",
    # The lanes that have published every rollup a cut covers.
    """
    CREATE TABLE system.cut_lane (
        cut_id uuid NOT NULL CONSTRAINT fk_cut_lane_cut_id_cut REFERENCES system.cut (id),
        lane smallint NOT NULL,
        passed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_cut_lane PRIMARY KEY (cut_id, lane)
    )
    """,
)

# Called by the migrator as the owner before a batch that needs a day, in a transaction of its own. It is no SECURITY
# DEFINER: the roles that serve and count may not create tables, and no grant lets them borrow the owner's rights.
# A partition is made apart and then attached, because CREATE TABLE ... PARTITION OF would lock out every writer.
# The partition itself is granted to nobody and has row security without a policy: it is reached through its parent.
ENSURE_USAGE_DAYS = """
CREATE FUNCTION system.ensure_usage_days(days date[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    wanted date;
    partition_name text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('usage.days', 0));
    FOR wanted IN SELECT DISTINCT d FROM unnest(days) AS d ORDER BY d LOOP
        partition_name := 'usage_event_' || to_char(wanted, 'YYYYMMDD');
        IF to_regclass('pool.' || partition_name) IS NULL THEN
            EXECUTE format('CREATE TABLE pool.%I (LIKE pool.usage_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                           partition_name);
            EXECUTE format('ALTER TABLE pool.%I ENABLE ROW LEVEL SECURITY', partition_name);
            EXECUTE format('ALTER TABLE pool.%I FORCE ROW LEVEL SECURITY', partition_name);
            EXECUTE format('ALTER TABLE pool.usage_event ATTACH PARTITION pool.%I FOR VALUES FROM (%L) TO (%L)',
                           partition_name, wanted, wanted + 1);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$
"""


def upgrade() -> None:
    for statement in backbone_tables(ROLES):
        op.execute(statement)
    for statement in TABLES:
        op.execute(statement)
    op.execute("INSERT INTO system.meter_catalogue (version) VALUES (0)")
    op.execute(ENSURE_USAGE_DAYS)
    op.execute("REVOKE EXECUTE ON FUNCTION system.ensure_usage_days(date[]) FROM PUBLIC")
    grants = [
        *shared_table("system.meter_catalogue", ROLES),
        *shared_table("system.meter", ROLES),
        *system_table("system.rollup_change", ROLES),
        *shared_table("system.partition_progress", ROLES),
        *system_table("system.parked_record", ROLES),
        *system_table("system.cut", ROLES),
        *system_table("system.cut_lane", ROLES),
    ]
    for statement in grants:
        op.execute(statement)

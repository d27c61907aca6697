"""The archive of raw events: its days, its objects, whose events are in them, and how a day leaves PostgreSQL."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0006_archive"
down_revision = "0005_features"
branch = "system"

ROLES = RoleNames("usage")

TABLES = (
    # A day that has, or had, a partition. The lock of its row is the right to write and delete its objects. `look_at`
    # is when something is to be done with it next; without one, all is done.
    """
    CREATE TABLE system.usage_day (
        day date NOT NULL CONSTRAINT pk_usage_day PRIMARY KEY,
        look_at timestamptz,
        archived_at timestamptz,
        newest_received_at timestamptz,
        dropped_at timestamptz,
        problem text
    )
    """,
    "CREATE INDEX ix_usage_day_look_at ON system.usage_day (look_at) WHERE look_at IS NOT NULL",
    # An object that is durable and has been read back. `digest`, `offsets` and `data_bytes` are sums of its rows, which
    # PostgreSQL says too as long as it has them; from `released_at` on the archive alone has them.
    """
    CREATE TABLE system.archive_object (
        id uuid NOT NULL CONSTRAINT pk_archive_object PRIMARY KEY,
        day date NOT NULL,
        received_from timestamptz,
        received_until timestamptz NOT NULL,
        last_received_at timestamptz NOT NULL,
        first_time timestamptz NOT NULL,
        last_time timestamptz NOT NULL,
        rows bigint NOT NULL,
        bytes bigint NOT NULL,
        sha256 bytea NOT NULL,
        digest bigint NOT NULL,
        offsets numeric NOT NULL,
        data_bytes bigint NOT NULL,
        created_at timestamptz NOT NULL,
        released_at timestamptz
    )
    """,
    "CREATE INDEX ix_archive_object_day ON system.archive_object (day)",
    "CREATE INDEX ix_archive_object_expiry ON system.archive_object (last_received_at) WHERE released_at IS NOT NULL",
    """
    CREATE TABLE system.archived_tenant (
        tenant_id uuid NOT NULL,
        object_id uuid NOT NULL CONSTRAINT fk_archived_tenant_object_id_archive_object
            REFERENCES system.archive_object (id),
        rows bigint NOT NULL,
        first_time timestamptz NOT NULL,
        last_time timestamptz NOT NULL,
        CONSTRAINT pk_archived_tenant PRIMARY KEY (tenant_id, object_id)
    )
    """,
    "CREATE INDEX ix_archived_tenant_object_id ON system.archived_tenant (object_id)",
)

# Called by the migrator as the owner, as `ensure_usage_days` is, in the transaction in which nobody can write to the
# day and its archive has been compared with it. The parent is locked for as long as a partition takes to go, and is
# waited for shorter than PostgreSQL waits before it looks for a deadlock: a batch that has the parent and wants the day
# must win.
DROP_USAGE_DAY = """
CREATE FUNCTION system.drop_usage_day(gone date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL lock_timeout = '500ms';
    LOCK TABLE pool.usage_event IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('DROP TABLE pool.%I', 'usage_event_' || to_char(gone, 'YYYYMMDD'));
    UPDATE system.archive_object SET released_at = clock_timestamp() WHERE day = gone AND released_at IS NULL;
END
$$
"""


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    op.execute(DROP_USAGE_DAY)
    op.execute("REVOKE EXECUTE ON FUNCTION system.drop_usage_day(date) FROM PUBLIC")
    for table in ("usage_day", "archive_object", "archived_tenant"):
        for statement in system_table(f"system.{table}", ROLES):
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION system.drop_usage_day(date)")
    op.execute("DROP TABLE system.archived_tenant, system.archive_object, system.usage_day")

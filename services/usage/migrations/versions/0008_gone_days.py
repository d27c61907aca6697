"""Days that have left PostgreSQL: they take no events any more, nor do the days that would be compared with them."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0008_gone_days"
down_revision = "0006_archive"
branch = "system"

ROLES = RoleNames("usage")

GONE_DAYS = "CREATE TABLE system.gone_day (day date NOT NULL CONSTRAINT pk_gone_day PRIMARY KEY)"
FILL = "INSERT INTO system.gone_day SELECT day FROM system.usage_day WHERE dropped_at IS NOT NULL"

# As before, but for a day that cannot take events because copies of them may be in the archive alone: it is not made,
# and not touched, and is in the answer. `around` is how many days on either side of its own an event is compared with.
ENSURE_USAGE_DAYS = """
CREATE FUNCTION system.ensure_usage_days(days date[], around integer DEFAULT 1) RETURNS date[] LANGUAGE plpgsql AS $$
DECLARE
    wanted date;
    partition_name text;
    gone date[];
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('usage.days', 0));
    SELECT COALESCE(array_agg(d ORDER BY d), '{}') INTO gone
      FROM unnest(days) AS d
     WHERE EXISTS (SELECT FROM system.gone_day WHERE day BETWEEN d - around AND d + around);
    FOR wanted IN SELECT DISTINCT d FROM unnest(days) AS d WHERE d <> ALL (gone) ORDER BY d LOOP
        partition_name := 'usage_event_' || to_char(wanted, 'YYYYMMDD');
        IF to_regclass('pool.' || partition_name) IS NULL THEN
            EXECUTE format('CREATE TABLE pool.%I (LIKE pool.usage_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                           partition_name);
            EXECUTE format('ALTER TABLE pool.%I ENABLE ROW LEVEL SECURITY', partition_name);
            EXECUTE format('ALTER TABLE pool.%I FORCE ROW LEVEL SECURITY', partition_name);
            EXECUTE format('ALTER TABLE pool.usage_event ATTACH PARTITION pool.%I FOR VALUES FROM (%L) TO (%L)',
                           partition_name, wanted, wanted + 1);
        END IF;
    END LOOP;
    RETURN gone;
END
$$
"""

# As before, and the day is gone in the same transaction: a worker that begins a batch after it knows.
DROP_USAGE_DAY = """
CREATE OR REPLACE FUNCTION system.drop_usage_day(gone date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL lock_timeout = '500ms';
    LOCK TABLE pool.usage_event IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('DROP TABLE pool.%I', 'usage_event_' || to_char(gone, 'YYYYMMDD'));
    INSERT INTO system.gone_day (day) VALUES (gone) ON CONFLICT DO NOTHING;
    UPDATE system.archive_object SET released_at = clock_timestamp() WHERE day = gone AND released_at IS NULL;
END
$$
"""


def upgrade() -> None:
    op.execute(GONE_DAYS)
    op.execute(FILL)
    for statement in system_table("system.gone_day", ROLES):
        op.execute(statement)
    op.execute("DROP FUNCTION system.ensure_usage_days(date[])")
    op.execute(ENSURE_USAGE_DAYS)
    op.execute("REVOKE EXECUTE ON FUNCTION system.ensure_usage_days(date[], integer) FROM PUBLIC")
    op.execute(DROP_USAGE_DAY)

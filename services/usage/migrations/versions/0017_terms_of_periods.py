"""The terms of each period of a quota beside its limit, resets, and grants that recur every so many intervals."""

from alembic import op

revision = "0017_terms_of_periods"
down_revision = "0019_correction_days"
branch = "tenant"

# A period that is over keeps what it was and gave: what is put now holds for the one that runs.
STATEMENTS = (
    """
    ALTER TABLE quota_limit
        ADD COLUMN interval text,
        ADD COLUMN time_zone text,
        ADD COLUMN anchored_at timestamptz,
        ADD COLUMN pays_overage boolean,
        ADD COLUMN preserve_overage boolean,
        ADD COLUMN rollover_max numeric,
        ADD COLUMN refill text,
        ADD COLUMN resets boolean NOT NULL DEFAULT false
    """,
    # The first limit begins where the quota counts from.
    """
    DELETE FROM quota_limit AS known USING quota
     WHERE (quota.tenant_id, quota.feature) = (known.tenant_id, known.feature)
       AND known.since < (SELECT max(first.since) FROM quota_limit AS first
                           WHERE (first.tenant_id, first.feature) = (quota.tenant_id, quota.feature)
                             AND first.since <= quota.since)
    """,
    """
    UPDATE quota_limit AS known SET since = quota.since FROM quota
     WHERE (quota.tenant_id, quota.feature) = (known.tenant_id, known.feature) AND known.since < quota.since
    """,
    """
    UPDATE quota_limit AS known SET
           interval = quota.interval, time_zone = quota.time_zone, anchored_at = quota.anchored_at,
           pays_overage = quota.pays_overage, preserve_overage = quota.preserve_overage,
           rollover_max = quota.rollover_max, refill = quota.refill
      FROM quota WHERE (quota.tenant_id, quota.feature) = (known.tenant_id, known.feature)
    """,
    """
    ALTER TABLE quota_limit
        ALTER COLUMN interval SET NOT NULL,
        ALTER COLUMN time_zone SET NOT NULL,
        ALTER COLUMN anchored_at SET NOT NULL,
        ALTER COLUMN pays_overage SET NOT NULL,
        ALTER COLUMN preserve_overage SET NOT NULL,
        ALTER COLUMN rollover_max SET NOT NULL
    """,
    """
    ALTER TABLE quota
        DROP COLUMN since, DROP COLUMN pays_overage, DROP COLUMN preserve_overage, DROP COLUMN rollover_max,
        DROP COLUMN refill
    """,
    "ALTER TABLE quota_grant ADD COLUMN recurs_every integer NOT NULL DEFAULT 1",
    # The greatest number of a tenant is asked for with each of its alerts.
    "CREATE INDEX ix_entitlement_alert_number ON entitlement_alert (tenant_id, number)",
)
BACK = (
    "DROP INDEX ix_entitlement_alert_number",
    "ALTER TABLE quota_grant DROP COLUMN recurs_every",
    """
    ALTER TABLE quota
        ADD COLUMN since timestamptz,
        ADD COLUMN pays_overage boolean NOT NULL DEFAULT true,
        ADD COLUMN preserve_overage boolean NOT NULL DEFAULT false,
        ADD COLUMN rollover_max numeric NOT NULL DEFAULT 0,
        ADD COLUMN refill text
    """,
    """
    UPDATE quota SET since = terms.first, pays_overage = terms.pays_overage,
           preserve_overage = terms.preserve_overage, rollover_max = terms.rollover_max, refill = terms.refill
      FROM (SELECT DISTINCT ON (tenant_id, feature) quota_limit.*,
                   min(since) OVER (PARTITION BY tenant_id, feature) AS first
              FROM quota_limit ORDER BY tenant_id, feature, since DESC) AS terms
     WHERE (quota.tenant_id, quota.feature) = (terms.tenant_id, terms.feature)
    """,
    "ALTER TABLE quota ALTER COLUMN since SET NOT NULL, ALTER COLUMN pays_overage DROP DEFAULT",
    "ALTER TABLE quota ALTER COLUMN preserve_overage DROP DEFAULT",
    """
    ALTER TABLE quota_limit
        DROP COLUMN interval, DROP COLUMN time_zone, DROP COLUMN anchored_at, DROP COLUMN pays_overage,
        DROP COLUMN preserve_overage, DROP COLUMN rollover_max, DROP COLUMN refill, DROP COLUMN resets
    """,
)


# The owner of a table sees its rows where its policies are not forced on it.
UNFORCED = [f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY" for table in ("quota", "quota_limit")]
FORCED = [f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY" for table in ("quota", "quota_limit")]


def upgrade() -> None:
    for statement in (*UNFORCED, *STATEMENTS, *FORCED):
        op.execute(statement)


def downgrade() -> None:
    for statement in (*UNFORCED, *BACK, *FORCED):
        op.execute(statement)

"""Corrections: which event each one cancels, and what counts instead."""

from alembic import op

from tenantry.database import RoleNames, tenant_table

revision = "0008_corrections"
down_revision = "0007_dead_letters"
branch = "tenant"

ROLES = RoleNames("usage")
READ = ("SELECT",)

# `identity`, `source` and `event_id` are those of the event that is cancelled, `day` is its day: without one the
# correction waits for the event, or has looked for it in vain in the archive (`missing_at`). `asked_day` is there where
# the correction says when the event was. An event is cancelled where a row has its tenant, identity and day; there is
# one at most.
STATEMENTS = (
    """
    CREATE TABLE correction (
        tenant_id uuid NOT NULL,
        identity uuid NOT NULL,
        id uuid NOT NULL,
        asked_day date,
        day date,
        source text NOT NULL,
        event_id text NOT NULL,
        replacement_source text,
        replacement_id text,
        reason text,
        received_at timestamptz NOT NULL,
        kafka_partition integer NOT NULL,
        kafka_offset bigint NOT NULL,
        applied_at timestamptz,
        missing_at timestamptz,
        CONSTRAINT pk_correction PRIMARY KEY (tenant_id, identity, id)
    )
    """,
    "CREATE UNIQUE INDEX uq_correction_day ON correction (tenant_id, identity, day) WHERE day IS NOT NULL",
    "CREATE INDEX ix_correction_waiting ON correction (kafka_partition) WHERE day IS NULL",
    """
    CREATE INDEX ix_correction_archived ON correction (asked_day)
        WHERE day IS NULL AND asked_day IS NOT NULL AND missing_at IS NULL
    """,
    "CREATE INDEX ix_correction_received ON correction (tenant_id, received_at, id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    for grant in tenant_table("correction", ROLES, service=READ):
        op.execute(grant)


def downgrade() -> None:
    op.execute("DROP TABLE correction")

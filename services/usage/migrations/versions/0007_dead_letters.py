"""Dead letters that can be replayed, and those of events that were refused for their age."""

from alembic import op

revision = "0007_dead_letters"
down_revision = "0005_entitlements"
branch = "tenant"

# `identity` is there for the late alone: a client that repeats a refused request leaves one letter and not one a try.
# They have no place in Kafka. The other index is for operators, who list the letters of all tenants by id.
STATEMENTS = (
    """
    ALTER TABLE dead_letter
        ADD COLUMN replayed_at timestamptz,
        ADD COLUMN replayed_by text,
        ADD COLUMN identity uuid,
        ALTER COLUMN kafka_partition DROP NOT NULL,
        ALTER COLUMN kafka_offset DROP NOT NULL
    """,
    "CREATE UNIQUE INDEX uq_dead_letter_late ON dead_letter (tenant_id, identity) WHERE kind = 'late'",
    "CREATE INDEX ix_dead_letter_id ON dead_letter (id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DELETE FROM dead_letter WHERE kind = 'late'")
    op.execute("DROP INDEX uq_dead_letter_late, ix_dead_letter_id")
    op.execute(
        "ALTER TABLE dead_letter DROP COLUMN replayed_at, DROP COLUMN replayed_by, DROP COLUMN identity,"
        " ALTER COLUMN kafka_partition SET NOT NULL, ALTER COLUMN kafka_offset SET NOT NULL"
    )

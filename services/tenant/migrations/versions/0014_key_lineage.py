"""Which key an API key was made with, and when it left the topic of credentials."""

from alembic import op

revision = "0014_key_lineage"
down_revision = "0013_runs_begin_in_turn"
branch = "system"

_STATEMENTS = (
    "ALTER TABLE system.api_key ADD COLUMN made_with uuid",
    "ALTER TABLE system.api_key ADD COLUMN withdrawn_at timestamptz",
    # The maker stands in created_by as the subject of its tokens; a key that replaces the one it was made with hangs
    # on none, or it would end with the one that it replaces.
    """
    UPDATE system.api_key AS made SET made_with = maker.id
    FROM system.api_key AS maker
    WHERE made.created_by = 'api-key:' || maker.id AND made.tenant_id = maker.tenant_id
      AND maker.replaced_by IS DISTINCT FROM made.id
    """,
    # What outlives the key that it was made with does so no longer.
    """
    WITH RECURSIVE bound AS (
        SELECT id, least(revoked_at, expires_at) AS ends_at FROM system.api_key WHERE made_with IS NULL
        UNION ALL
        SELECT made.id, least(bound.ends_at, made.revoked_at, made.expires_at)
        FROM system.api_key AS made JOIN bound ON made.made_with = bound.id
    )
    UPDATE system.api_key SET expires_at = bound.ends_at FROM bound
    WHERE api_key.id = bound.id AND api_key.made_with IS NOT NULL AND api_key.revoked_at IS NULL
      AND bound.ends_at < coalesce(api_key.expires_at, 'infinity')
    """,
    # Of keys that have expired the records are still there; housekeeping takes them off.
    "UPDATE system.api_key SET withdrawn_at = revoked_at WHERE revoked_at IS NOT NULL",
    "CREATE INDEX ix_api_key_made_with ON system.api_key (made_with) WHERE made_with IS NOT NULL",
    "CREATE INDEX ix_api_key_expires_at ON system.api_key (expires_at) WHERE withdrawn_at IS NULL",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX system.ix_api_key_made_with, system.ix_api_key_expires_at")
    op.execute("ALTER TABLE system.api_key DROP COLUMN made_with, DROP COLUMN withdrawn_at")

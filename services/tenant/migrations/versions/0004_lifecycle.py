"""Flags, trials and runs that can be undone."""

from alembic import op

revision = "0004_lifecycle"
down_revision = "0003_identity"
branch = "system"

TENANT_COLUMNS = {
    "moving": "boolean NOT NULL DEFAULT false",
    "trial_ends_at": "timestamptz",
    "trial_end_announced": "boolean NOT NULL DEFAULT false",
    "legal_hold": "boolean NOT NULL DEFAULT false",
    "grace_ends_at": "timestamptz",
}

STATEMENTS = (
    *(f"ALTER TABLE system.tenant ADD COLUMN {name} {kind}" for name, kind in TENANT_COLUMNS.items()),
    # The trials that are not over: what the housekeeping looks at, however many tenants there are.
    """
    CREATE INDEX ix_tenant_trial_ends_at ON system.tenant (trial_ends_at)
    WHERE trial_ends_at IS NOT NULL AND NOT 'trial' = ANY (suspension_reasons)
    """,
    "CREATE INDEX ix_tenant_grace_ends_at ON system.tenant (grace_ends_at) WHERE status = 'offboarding'",
    "ALTER TABLE system.saga_step ADD COLUMN compensates integer",
    "ALTER TABLE system.saga_request ADD COLUMN retryable boolean NOT NULL DEFAULT false",
    "DROP INDEX system.ix_saga_run_open",
    """
    CREATE INDEX ix_saga_run_open ON system.saga_run (subject_id)
    WHERE state IN ('running', 'compensating', 'needs_operator')
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX system.ix_saga_run_open")
    op.execute("CREATE INDEX ix_saga_run_open ON system.saga_run (state) WHERE state IN ('running', 'needs_operator')")
    op.execute("ALTER TABLE system.saga_request DROP COLUMN retryable")
    op.execute("ALTER TABLE system.saga_step DROP COLUMN compensates")
    for name in TENANT_COLUMNS:
        op.execute(f"ALTER TABLE system.tenant DROP COLUMN {name}")

"""Indexes for a queue in which runs that have begun go first."""

from alembic import op

revision = "0013_runs_begin_in_turn"
down_revision = "0012_token_revocations"
branch = "system"

# What the workers' statements say word for word (runs/due_steps.py). Each holds only steps that are not over.
_INDEXES = (
    """
    CREATE INDEX ix_saga_step_due ON system.saga_step (next_retry_at NULLS FIRST, run_id)
    WHERE state IN ('pending', 'waiting') AND (position > 0 OR attempt > 0)
    """,
    """
    CREATE INDEX ix_saga_step_beginning ON system.saga_step (run_id)
    WHERE state = 'pending' AND position = 0 AND attempt = 0
    """,
    "CREATE INDEX ix_saga_step_waiting ON system.saga_step (started_at) WHERE state = 'waiting'",
)


def upgrade() -> None:
    op.execute("DROP INDEX system.ix_saga_step_due")
    for statement in _INDEXES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX system.ix_saga_step_due, system.ix_saga_step_beginning, system.ix_saga_step_waiting")
    op.execute(
        "CREATE INDEX ix_saga_step_due ON system.saga_step (next_retry_at NULLS FIRST, run_id) "
        "WHERE state IN ('pending', 'waiting')"
    )

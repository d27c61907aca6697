"""Durable sagas: runs, steps, and what steps ask of services."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0002_sagas"
down_revision = "0001_registry"
branch = "system"

ROLES = RoleNames("tenant")
NO_DELETE = ("SELECT", "INSERT", "UPDATE")

TABLES = (
    """
    CREATE TABLE system.saga_run (
        id uuid NOT NULL CONSTRAINT pk_saga_run PRIMARY KEY,
        kind text NOT NULL,
        subject_id uuid NOT NULL,
        tenant_id uuid CONSTRAINT fk_saga_run_tenant_id_tenant REFERENCES system.tenant (id),
        state text NOT NULL,
        data jsonb NOT NULL,
        requested_by text NOT NULL,
        created_at timestamptz NOT NULL,
        ended_at timestamptz
    )
    """,
    "CREATE INDEX ix_saga_run_subject_id ON system.saga_run (subject_id, id)",
    "CREATE INDEX ix_saga_run_open ON system.saga_run (state) WHERE state IN ('running', 'needs_operator')",
    """
    CREATE TABLE system.saga_step (
        run_id uuid NOT NULL CONSTRAINT fk_saga_step_run_id_saga_run REFERENCES system.saga_run (id),
        position integer NOT NULL,
        name text NOT NULL,
        state text NOT NULL,
        attempt integer NOT NULL,
        budget_start integer NOT NULL,
        idempotency_key uuid NOT NULL CONSTRAINT uq_saga_step_idempotency_key UNIQUE,
        error_code text,
        error_detail text,
        next_retry_at timestamptz,
        started_at timestamptz,
        ended_at timestamptz,
        CONSTRAINT pk_saga_step PRIMARY KEY (run_id, position)
    )
    """,
    # The queue of the workers: it holds only steps that are not over, however many runs there have been.
    """
    CREATE INDEX ix_saga_step_due ON system.saga_step (next_retry_at NULLS FIRST, run_id)
    WHERE state IN ('pending', 'waiting')
    """,
    """
    CREATE TABLE system.saga_request (
        request_id uuid NOT NULL,
        service text NOT NULL,
        run_id uuid NOT NULL,
        position integer NOT NULL,
        attempt integer NOT NULL,
        outcome text,
        error_code text,
        error_detail text,
        result jsonb,
        requested_at timestamptz NOT NULL,
        answered_at timestamptz,
        CONSTRAINT pk_saga_request PRIMARY KEY (request_id, service),
        CONSTRAINT fk_saga_request_run_id_saga_step FOREIGN KEY (run_id, position)
            REFERENCES system.saga_step (run_id, position)
    )
    """,
    "CREATE INDEX ix_saga_request_run_id ON system.saga_request (run_id, position)",
)


def upgrade() -> None:
    statements = list(TABLES)
    for table in ("system.saga_run", "system.saga_step", "system.saga_request"):
        statements += system_table(table, ROLES, system=NO_DELETE)
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    for table in ("saga_request", "saga_step", "saga_run"):
        op.execute(f"DROP TABLE system.{table}")

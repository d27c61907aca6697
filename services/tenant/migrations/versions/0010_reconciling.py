"""What services were asked about their tenants, and what was found to differ."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0010_reconciling"
down_revision = "0009_offboarding"
branch = "system"

ROLES = RoleNames("tenant")

TABLES = (
    """
    CREATE TABLE system.reconciliation (
        id uuid NOT NULL CONSTRAINT pk_reconciliation PRIMARY KEY,
        tenant_id uuid CONSTRAINT fk_reconciliation_tenant_id_tenant REFERENCES system.tenant (id),
        repair boolean NOT NULL,
        state text NOT NULL,
        requested_by text NOT NULL,
        reached uuid,
        pages integer NOT NULL,
        all_pages boolean NOT NULL,
        opened integer NOT NULL,
        repaired integer NOT NULL,
        closed integer NOT NULL,
        created_at timestamptz NOT NULL,
        ended_at timestamptz
    )
    """,
    "CREATE INDEX ix_reconciliation_open ON system.reconciliation (created_at) WHERE state <> 'ended'",
    # One look of one service at a time; the row goes when there is nothing more to look at.
    """
    CREATE TABLE system.reconciliation_page (
        reconciliation_id uuid NOT NULL CONSTRAINT fk_reconciliation_page_reconciliation_id_reconciliation
            REFERENCES system.reconciliation (id),
        position integer NOT NULL,
        service text NOT NULL,
        after_id uuid,
        until_id uuid,
        look integer NOT NULL,
        request_id uuid NOT NULL CONSTRAINT uq_reconciliation_page_request_id UNIQUE,
        due_at timestamptz NOT NULL,
        asked_at timestamptz,
        answered_at timestamptz,
        report jsonb,
        error text,
        baseline jsonb NOT NULL,
        CONSTRAINT pk_reconciliation_page PRIMARY KEY (reconciliation_id, position, service)
    )
    """,
    """
    CREATE TABLE system.finding (
        id uuid NOT NULL CONSTRAINT pk_finding PRIMARY KEY,
        code text NOT NULL,
        severity text NOT NULL,
        service text NOT NULL,
        subject text NOT NULL,
        tenant_id uuid,
        detail text NOT NULL,
        repair text NOT NULL,
        opened_at timestamptz NOT NULL,
        seen_at timestamptz NOT NULL,
        repaired_at timestamptz,
        repaired_in uuid,
        run_id uuid,
        closed_at timestamptz
    )
    """,
    "CREATE UNIQUE INDEX uq_finding_open ON system.finding (code, service, subject) WHERE closed_at IS NULL",
    "CREATE INDEX ix_finding_open ON system.finding (service, tenant_id) WHERE closed_at IS NULL",
    "CREATE INDEX ix_finding_tenant_id ON system.finding (tenant_id, id)",
)


def upgrade() -> None:
    grants = [
        grant
        for table in ("reconciliation", "reconciliation_page", "finding")
        for grant in system_table(f"system.{table}", ROLES)
    ]
    for statement in (*TABLES, *grants):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.finding, system.reconciliation_page, system.reconciliation")

"""What belongs to billing itself: plans, sellers, cuts of the usage stream, invoice runs and their work."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0002"
down_revision = "0001"
branch = "system"

TABLES = {
    "plan_version": """
        CREATE TABLE system.plan_version (
            code text NOT NULL,
            version integer NOT NULL,
            digest text NOT NULL,
            document jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            created_by text NOT NULL,
            PRIMARY KEY (code, version)
        )
    """,
    "seller": """
        CREATE TABLE system.seller (
            code text PRIMARY KEY,
            name text NOT NULL,
            number_prefix text NOT NULL,
            next_number bigint NOT NULL CHECK (next_number > 0)
        )
    """,
    "invoice_number": """
        CREATE TABLE system.invoice_number (
            seller_code text NOT NULL REFERENCES system.seller (code),
            sequence bigint NOT NULL,
            tenant_id uuid NOT NULL,
            invoice_id uuid NOT NULL,
            PRIMARY KEY (seller_code, sequence)
        )
    """,
    "usage_cut": """
        CREATE TABLE system.usage_cut (
            cut_id uuid NOT NULL,
            partition integer NOT NULL,
            partitions integer NOT NULL,
            offsets jsonb NOT NULL,
            released boolean NOT NULL DEFAULT false,
            read_at timestamptz NOT NULL,
            PRIMARY KEY (cut_id, partition)
        )
    """,
    "invoice_run": """
        CREATE TABLE system.invoice_run (
            id uuid PRIMARY KEY,
            as_of timestamptz NOT NULL,
            tenants uuid[],
            dry_run boolean NOT NULL,
            grace_seconds integer NOT NULL,
            state text NOT NULL,
            cut_id uuid,
            error text,
            requested_by text NOT NULL,
            created_at timestamptz NOT NULL,
            cut_requested_at timestamptz,
            finished_at timestamptz
        )
    """,
    "invoice_run_item": """
        CREATE TABLE system.invoice_run_item (
            run_id uuid NOT NULL REFERENCES system.invoice_run (id),
            n integer NOT NULL,
            tenant_id uuid NOT NULL,
            subscription_id uuid NOT NULL,
            period_from timestamptz NOT NULL,
            period_to timestamptz NOT NULL,
            days_used integer NOT NULL,
            days_whole integer NOT NULL,
            billed_at timestamptz NOT NULL,
            state text NOT NULL,
            invoice_id uuid,
            currency text,
            total numeric,
            reason text,
            PRIMARY KEY (run_id, n)
        )
    """,
}

INDEXES = (
    "CREATE INDEX invoice_run_open ON system.invoice_run (created_at) WHERE state NOT IN ('done', 'failed')",
    "CREATE INDEX invoice_run_item_pending ON system.invoice_run_item (run_id, n) WHERE state = 'pending'",
    "CREATE INDEX invoice_run_item_drafted ON system.invoice_run_item (run_id, invoice_id) WHERE state = 'drafted'",
    "CREATE INDEX usage_cut_open ON system.usage_cut (partition) WHERE NOT released",
)


def upgrade() -> None:
    roles = RoleNames("billing")
    for name, statement in TABLES.items():
        op.execute(statement)
        for grant in system_table(f"system.{name}", roles):
            op.execute(grant)
    for statement in INDEXES:
        op.execute(statement)
    op.execute("INSERT INTO system.seller (code, name, number_prefix, next_number) VALUES ('default', '', 'INV-', 1)")

"""What belongs to tenants: subscriptions, the copy of their usage, drafts and invoices.

A final invoice and its lines are written once: no role of the service may update or delete them.
"""

from alembic import op

from tenantry.database import RoleNames, immutable_table, tenant_table

revision = "t0001"
down_revision = None
branch = "tenant"

TABLES = {
    "subscription": """
        CREATE TABLE subscription (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL,
            account text NOT NULL,
            seller_code text NOT NULL,
            plan_code text NOT NULL,
            plan_version integer NOT NULL,
            currency text NOT NULL,
            quantities jsonb NOT NULL,
            time_zone text NOT NULL,
            anchor text NOT NULL,
            start_at timestamptz NOT NULL,
            ends_at timestamptz,
            version integer NOT NULL,
            created_at timestamptz NOT NULL,
            PRIMARY KEY (tenant_id, id)
        )
    """,
    "standing": """
        CREATE TABLE standing (
            tenant_id uuid NOT NULL,
            version bigint NOT NULL,
            PRIMARY KEY (tenant_id)
        )
    """,
    "usage_rollup": """
        CREATE TABLE usage_rollup (
            tenant_id uuid NOT NULL,
            meter text NOT NULL,
            window_start timestamptz NOT NULL,
            meter_version integer NOT NULL,
            aggregation text NOT NULL,
            group_hash text NOT NULL,
            "group" jsonb NOT NULL,
            count numeric NOT NULL,
            sum numeric,
            min numeric,
            max numeric,
            latest jsonb,
            integral numeric,
            version bigint NOT NULL,
            PRIMARY KEY (tenant_id, meter, window_start, meter_version, group_hash)
        )
    """,
    "usage_rollup_at_cut": """
        CREATE TABLE usage_rollup_at_cut (
            tenant_id uuid NOT NULL,
            cut_id uuid NOT NULL,
            meter text NOT NULL,
            window_start timestamptz NOT NULL,
            meter_version integer NOT NULL,
            group_hash text NOT NULL,
            count numeric NOT NULL,
            sum numeric,
            min numeric,
            max numeric,
            latest jsonb,
            integral numeric,
            version bigint NOT NULL,
            PRIMARY KEY (tenant_id, cut_id, meter, window_start, meter_version, group_hash)
        )
    """,
    "billed_period": """
        CREATE TABLE billed_period (
            tenant_id uuid NOT NULL,
            subscription_id uuid NOT NULL,
            period_from timestamptz NOT NULL,
            kind text NOT NULL,
            period_to timestamptz NOT NULL,
            run_id uuid NOT NULL,
            invoice_id uuid,
            skipped text,
            PRIMARY KEY (tenant_id, subscription_id, period_from, kind),
            FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscription (tenant_id, id),
            CHECK ((invoice_id IS NULL) <> (skipped IS NULL))
        )
    """,
    "invoice_draft": """
        CREATE TABLE invoice_draft (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL,
            run_id uuid NOT NULL,
            kind text NOT NULL,
            subscription_id uuid NOT NULL,
            account text NOT NULL,
            seller_code text NOT NULL,
            plan_code text NOT NULL,
            plan_version integer NOT NULL,
            currency text NOT NULL,
            period_from timestamptz NOT NULL,
            period_to timestamptz NOT NULL,
            cut_id uuid NOT NULL,
            total numeric NOT NULL,
            issued_at timestamptz NOT NULL,
            lines jsonb NOT NULL,
            sequence bigint,
            number text,
            PRIMARY KEY (tenant_id, id),
            FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscription (tenant_id, id)
        )
    """,
    "invoice_final": """
        CREATE TABLE invoice_final (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL,
            number text NOT NULL,
            seller_code text NOT NULL,
            sequence bigint NOT NULL,
            run_id uuid NOT NULL,
            kind text NOT NULL,
            subscription_id uuid NOT NULL,
            account text NOT NULL,
            plan_code text NOT NULL,
            plan_version integer NOT NULL,
            currency text NOT NULL,
            period_from timestamptz NOT NULL,
            period_to timestamptz NOT NULL,
            cut_id uuid NOT NULL,
            total numeric NOT NULL,
            issued_at timestamptz NOT NULL,
            PRIMARY KEY (tenant_id, id),
            UNIQUE (tenant_id, subscription_id, period_from, kind),
            FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscription (tenant_id, id)
        )
    """,
    "invoice_line": """
        CREATE TABLE invoice_line (
            tenant_id uuid NOT NULL,
            invoice_id uuid NOT NULL,
            n integer NOT NULL,
            charge text NOT NULL,
            kind text NOT NULL,
            description text NOT NULL,
            quantity numeric,
            unit_amount numeric,
            exact_amount numeric NOT NULL,
            amount numeric NOT NULL,
            formula text NOT NULL,
            inputs jsonb NOT NULL,
            usage_count numeric,
            usage_total numeric,
            usage_rollups bigint,
            usage_digest text,
            PRIMARY KEY (tenant_id, invoice_id, n),
            FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice_final (tenant_id, id)
        )
    """,
}

IMMUTABLE = {"invoice_final", "invoice_line"}

INDEXES = (
    "CREATE INDEX subscription_page ON subscription (id)",
    "CREATE INDEX usage_rollup_at_cut_cut ON usage_rollup_at_cut (cut_id)",
    "CREATE INDEX invoice_draft_run ON invoice_draft (run_id)",
    "CREATE INDEX invoice_final_page ON invoice_final (id)",
)


def upgrade() -> None:
    roles = RoleNames("billing")
    for name, statement in TABLES.items():
        op.execute(statement)
        protect = immutable_table if name in IMMUTABLE else tenant_table
        for rule in protect(name, roles):
            op.execute(rule)
    for statement in INDEXES:
        op.execute(statement)

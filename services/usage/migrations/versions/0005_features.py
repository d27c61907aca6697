"""The features that tenants can be entitled to, and the queue of balances that may have changed."""

from alembic import op

from tenantry.database import RoleNames, shared_table, system_table

revision = "0005_features"
down_revision = "0003_offboarding"
branch = "system"

ROLES = RoleNames("usage")

FEATURE = """
CREATE TABLE system.feature (
    slug text NOT NULL CONSTRAINT pk_feature PRIMARY KEY,
    kind text NOT NULL CONSTRAINT ck_kind CHECK (kind IN ('boolean', 'static', 'metered')),
    meter text,
    created_at timestamptz NOT NULL
)
"""
# Appended to, and never updated, so that whoever adds a row waits for nobody. The balance is worked out from rollups
# after the row is taken, in the same transaction.
BALANCE_CHANGE = """
CREATE TABLE system.balance_change (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_balance_change PRIMARY KEY,
    tenant_id uuid NOT NULL,
    feature text NOT NULL
)
"""


def upgrade() -> None:
    op.execute(FEATURE)
    op.execute(BALANCE_CHANGE)
    for statement in (*shared_table("system.feature", ROLES), *system_table("system.balance_change", ROLES)):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.balance_change, system.feature")

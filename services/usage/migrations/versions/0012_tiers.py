"""What tiers entitle their tenants to, as they publish it."""

from alembic import op

from tenantry.database import RoleNames, shared_table

revision = "0012_tiers"
down_revision = "0009_backfill"
branch = "system"

# `metered` are the features that the tier gives a quota of.
TIER = """
CREATE TABLE system.entitlement_tier (
    name text NOT NULL CONSTRAINT pk_entitlement_tier PRIMARY KEY,
    version bigint NOT NULL,
    entitlements jsonb NOT NULL,
    metered text[] NOT NULL
)
"""


def upgrade() -> None:
    op.execute(TIER)
    for statement in shared_table("system.entitlement_tier", RoleNames("usage")):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.entitlement_tier")

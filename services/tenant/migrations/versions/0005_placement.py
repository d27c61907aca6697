"""Stores, regions and the placement policy of tiers."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0005_placement"
down_revision = "0004_lifecycle"
branch = "system"

STORE = """
    CREATE TABLE system.store (
        name text NOT NULL CONSTRAINT pk_store PRIMARY KEY,
        region text NOT NULL,
        capacity bigint CONSTRAINT ck_store_capacity CHECK (capacity >= 0),
        isolations text[] NOT NULL,
        state text NOT NULL,
        tenants bigint NOT NULL CONSTRAINT ck_store_tenants CHECK (tenants >= 0),
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    )
"""


def upgrade() -> None:
    for table in ("tier", "tier_version"):
        for column in ("placement", "constraints"):
            op.execute(f"ALTER TABLE system.{table} ADD COLUMN {column} jsonb NOT NULL DEFAULT '{{}}'")
    op.execute(STORE)
    for statement in system_table("system.store", RoleNames("tenant"), system=("SELECT", "INSERT", "UPDATE")):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE system.store")
    for table in ("tier", "tier_version"):
        for column in ("placement", "constraints"):
            op.execute(f"ALTER TABLE system.{table} DROP COLUMN {column}")

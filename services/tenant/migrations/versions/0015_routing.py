"""Over how many keys the events of a tenant are spread."""

from alembic import op

revision = "0015_routing"
down_revision = "0014_key_lineage"
branch = "system"

_COLUMNS = {
    "routing_buckets": "integer NOT NULL DEFAULT 1 CHECK (routing_buckets >= 1)",
    "routing_pinned": "boolean NOT NULL DEFAULT false",
    "routing_changed_at": "timestamptz",
}


def upgrade() -> None:
    for name, kind in _COLUMNS.items():
        op.execute(f"ALTER TABLE system.tenant ADD COLUMN {name} {kind}")


def downgrade() -> None:
    for name in _COLUMNS:
        op.execute(f"ALTER TABLE system.tenant DROP COLUMN {name}")

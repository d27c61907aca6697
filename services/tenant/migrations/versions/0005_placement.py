"""Stores, regions and the placement policy of tiers."""

revision = "0005_placement"
down_revision = "0004_lifecycle"
branch = "system"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""

"""Flags, trials and runs that can be undone."""

revision = "0004_lifecycle"
down_revision = "0003_identity"
branch = "system"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""

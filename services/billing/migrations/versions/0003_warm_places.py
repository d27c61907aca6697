"""Nothing: billing keeps every tenant in its pool, so it makes no places. The number stays, others follow it."""

revision = "0003"
down_revision = "0002"
branch = "system"


def upgrade() -> None:
    """There is nothing to do."""


def downgrade() -> None:
    """There is nothing to undo."""

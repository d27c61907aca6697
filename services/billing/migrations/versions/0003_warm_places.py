"""Places that are made ahead of the tenants."""

revision = "0003"
down_revision = "0002"
branch = "system"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""

"""Places that are made ahead of the tenants."""

revision = "0002_warm_places"
down_revision = "0001_backbone"
branch = "system"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""

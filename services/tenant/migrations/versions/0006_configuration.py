"""Layered configuration: schemas, versions, secrets."""

revision = "0006_configuration"
down_revision = "0005_placement"
branch = "system"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""

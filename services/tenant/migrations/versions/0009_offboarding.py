"""Exports, purges and their certificates."""

revision = "0009_offboarding"
down_revision = "0008_audit_chain"
branch = "system"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""

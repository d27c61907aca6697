"""The hash chain of the audit trail."""

revision = "0008_audit_chain"
down_revision = "0007_members"
branch = "system"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""

"""People: members, invitations, domains, support access."""

revision = "0007_members"
down_revision = "0006_configuration"
branch = "system"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""

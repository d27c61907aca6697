"""How long a correction waits that names no day: by its tenant's clock, which a test may have set ahead."""

from alembic import op

revision = "0019_correction_days"
down_revision = "0010_whole_days"
branch = "tenant"


def upgrade() -> None:
    op.execute("ALTER TABLE correction ADD COLUMN last_day date")


def downgrade() -> None:
    op.execute("ALTER TABLE correction DROP COLUMN last_day")

"""A worker says which schema its release was made for."""

from alembic import op

revision = "queue_0014"
down_revision = "queue_0013"
oldest_beside = "queue_0014"  # older releases refuse every newer schema
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE ledger.workers ADD COLUMN knows text")


def downgrade() -> None:
    op.execute("ALTER TABLE ledger.workers DROP COLUMN knows")

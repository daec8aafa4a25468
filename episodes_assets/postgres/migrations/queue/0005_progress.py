"""When a chunk last came nearer to its end: how a day that makes no progress is found."""

from alembic import op

revision = "queue_0005"
down_revision = "queue_0004"
oldest_beside = "queue_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE ledger.chunks ADD COLUMN moved_at timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE ledger.chunks DROP COLUMN moved_at")

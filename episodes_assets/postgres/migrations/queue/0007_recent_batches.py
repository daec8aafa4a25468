"""The batches that ended lately, found without reading those of all days: the Fleet page draws them."""

from alembic import op

revision = "queue_0007"
down_revision = "queue_0006"
oldest_beside = "queue_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX batches_by_end ON ledger.batches (finished_at)")


def downgrade() -> None:
    op.execute("DROP INDEX ledger.batches_by_end")

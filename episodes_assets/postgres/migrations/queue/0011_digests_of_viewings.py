"""Plans name the content of the version of the lake's viewings beside its number."""

from alembic import op

revision = "queue_0011"
down_revision = "queue_0010"
oldest_beside = "queue_0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # NULL for plans from before: what the lake has now under their number says nothing of what it had then.
    op.execute("ALTER TABLE ledger.plans ADD COLUMN viewings_digest text")


def downgrade() -> None:
    op.execute("ALTER TABLE ledger.plans DROP COLUMN viewings_digest")

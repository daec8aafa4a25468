"""Plans name the version of the lake's viewings that their jobs are computed from."""

from alembic import op

revision = "queue_0010"
down_revision = "queue_0009"
oldest_beside = "queue_0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # NULL for plans from before the lake, until they are pinned.
    op.execute("ALTER TABLE ledger.plans ADD COLUMN viewings_version bigint")


def downgrade() -> None:
    op.execute("ALTER TABLE ledger.plans DROP COLUMN viewings_version")

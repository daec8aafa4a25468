"""Publications name the content of the version of the lake's viewings beside its number."""

from alembic import op

revision = "results_0006"
down_revision = "results_0005"
oldest_beside = "results_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # NULL for what was published before: what the lake has now under their number says nothing of then.
    op.execute(
        """
        ALTER TABLE published.days ADD COLUMN viewings_digest text;
        ALTER TABLE published.history ADD COLUMN viewings_digest text;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE published.history DROP COLUMN viewings_digest;
        ALTER TABLE published.days DROP COLUMN viewings_digest;
        """
    )

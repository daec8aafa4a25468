"""Publications name the version of the lake's viewings that their rows were computed from."""

from alembic import op

revision = "results_0005"
down_revision = "results_0004"
oldest_beside = "results_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # NULL for what was published before the lake.
    op.execute(
        """
        ALTER TABLE published.days ADD COLUMN viewings_version bigint;
        ALTER TABLE published.history ADD COLUMN viewings_version bigint;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE published.history DROP COLUMN viewings_version;
        ALTER TABLE published.days DROP COLUMN viewings_version;
        """
    )

"""Repairs name the run that made them, which has each on record once, however often a step is retried."""

from alembic import op

revision = "results_0008"
down_revision = "results_0007"
oldest_beside = "results_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # NULL for repairs from before: it was not recorded, and such rows do not exclude each other.
    op.execute(
        """
        ALTER TABLE published.repairs ADD COLUMN run_id text;
        CREATE UNIQUE INDEX repairs_of_a_run ON published.repairs (run_id, day, what);
        """
    )


def downgrade() -> None:
    op.execute("ALTER TABLE published.repairs DROP COLUMN run_id")

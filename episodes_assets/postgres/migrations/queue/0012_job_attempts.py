"""What single jobs have been through is kept in `ledger.job_attempts`, which was called `lone_jobs`."""

from alembic import op

revision = "queue_0012"
down_revision = "queue_0011"
oldest_beside = "queue_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Views, indexes, rights and constraints go with the table.
    op.execute("ALTER TABLE ledger.lone_jobs RENAME TO job_attempts")
    op.execute("ALTER INDEX ledger.lone_jobs_pkey RENAME TO job_attempts_pkey")


def downgrade() -> None:
    op.execute("ALTER INDEX ledger.job_attempts_pkey RENAME TO lone_jobs_pkey")
    op.execute("ALTER TABLE ledger.job_attempts RENAME TO lone_jobs")

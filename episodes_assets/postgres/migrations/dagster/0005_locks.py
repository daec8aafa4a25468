"""Locks of the accounts as rows, which Dagster's role cannot take."""

from alembic import op

revision = "dagster_0005"
down_revision = "dagster_0004"
oldest_beside = "dagster_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE dashboard.locks (name text PRIMARY KEY)")


def downgrade() -> None:
    op.execute("DROP TABLE dashboard.locks")

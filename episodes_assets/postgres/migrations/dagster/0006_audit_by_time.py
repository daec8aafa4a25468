"""The audit log by time through an index that a search for one name's events cannot take."""

from alembic import op

revision = "dagster_0006"
down_revision = "dagster_0005"
oldest_beside = "dagster_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        DROP INDEX dashboard.audit_log_by_time;
        CREATE INDEX audit_log_by_time ON dashboard.audit_log ((at AT TIME ZONE 'UTC'), event_id);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP INDEX dashboard.audit_log_by_time;
        CREATE INDEX audit_log_by_time ON dashboard.audit_log (at, event_id);
        """
    )

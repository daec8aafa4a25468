"""Indexes by which old logins and the newest events are found without looking at all of them."""

from alembic import op

revision = "dagster_0004"
down_revision = "dagster_0003"
oldest_beside = "dagster_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE INDEX login_attempts_of_a_name
            ON dashboard.login_attempts ((substring(subject FROM 1 FOR 16)));
        DROP INDEX dashboard.old_login_attempts;
        CREATE INDEX old_failed_logins ON dashboard.login_attempts (failed_at) WHERE succeeded_at IS NULL;
        CREATE INDEX old_logins ON dashboard.login_attempts (succeeded_at) WHERE succeeded_at IS NOT NULL;

        -- Events are read by time, never by their number, so that one index at a time fits.
        DROP INDEX dashboard.audit_log_by_time, dashboard.audit_log_of_somebody;
        CREATE INDEX audit_log_by_time ON dashboard.audit_log (at, event_id);
        CREATE INDEX audit_log_of_somebody ON dashboard.audit_log (who, at, event_id);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP INDEX dashboard.audit_log_by_time, dashboard.audit_log_of_somebody;
        CREATE INDEX audit_log_by_time ON dashboard.audit_log (at);
        CREATE INDEX audit_log_of_somebody ON dashboard.audit_log (who, event_id);
        DROP INDEX dashboard.old_failed_logins, dashboard.old_logins, dashboard.login_attempts_of_a_name;
        CREATE INDEX old_login_attempts ON dashboard.login_attempts (failed_at);
        """
    )

"""Alerts to people, and the messages about them that channels are to get (an outbox)."""

from alembic import op

revision = "queue_0015"
down_revision = "queue_0014"
oldest_beside = "queue_0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        -- A schema of its own: workers, who have rights in `ledger`, have none here.
        CREATE SCHEMA alerts;

        -- A row is an alert from when it is seen first until it has ended. The times are given, since they
        -- are compared with each other only.
        CREATE TABLE alerts.alerts (
            alert_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            key text NOT NULL CHECK (key <> ''),
            kind text NOT NULL CHECK (kind <> ''),
            severity text NOT NULL CHECK (severity IN ('error', 'warning')),
            summary text NOT NULL,
            detail text NOT NULL,
            hint text NOT NULL,
            first_seen_at timestamptz NOT NULL,
            seen_at timestamptz NOT NULL,
            opened_at timestamptz,      -- NULL while it has not lasted long enough to tell anybody
            resolved_at timestamptz
        );
        CREATE UNIQUE INDEX one_open_alert_of_a_key ON alerts.alerts (key) WHERE resolved_at IS NULL;
        CREATE INDEX ended_alerts ON alerts.alerts (resolved_at) WHERE resolved_at IS NOT NULL;

        CREATE TABLE alerts.messages (
            message_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            -- By which a receiver recognises a message that it gets again.
            message_uid uuid NOT NULL DEFAULT gen_random_uuid(),
            alert_id bigint NOT NULL REFERENCES alerts.alerts ON DELETE CASCADE,
            channel text NOT NULL CHECK (channel <> ''),
            event text NOT NULL CHECK (event IN ('opened', 'reminded', 'resolved')),
            summary text NOT NULL,
            detail text NOT NULL,
            created_at timestamptz NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            -- When the next attempt may begin; while one is under way, when it counts as lost.
            not_before timestamptz NOT NULL,
            delivered_at timestamptz,
            problem text                -- why the last attempt failed
        );
        -- Whatever decides at the same time: opened once, resolved once.
        CREATE UNIQUE INDEX one_message_of_an_event ON alerts.messages (alert_id, channel, event)
            WHERE event <> 'reminded';
        CREATE INDEX messages_of_alerts ON alerts.messages (alert_id, channel, message_id);
        CREATE INDEX undelivered_messages ON alerts.messages (message_id) WHERE delivered_at IS NULL;

        -- When each kind of process has looked last.
        CREATE TABLE alerts.evaluations (
            evaluator text PRIMARY KEY CHECK (evaluator <> ''),
            evaluated_at timestamptz NOT NULL
        );
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE alerts.evaluations, alerts.messages, alerts.alerts;
        DROP SCHEMA alerts;
        """
    )

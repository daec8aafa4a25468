"""The queue of the outbox: claiming the next message that is due, and recording how its attempt ended.

A claim is a lease, so the message of a process that dies is left to others. A channel gets the messages about
an alert in their order; those about a later alert of the same key wait until these are delivered or have
failed often. Messages are written with their alert in `records.py`, and sent in `delivery.py`.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, replace
from uuid import UUID

from psycopg.rows import class_row

from episodes_assets.alerts.lifecycle import ChannelName, Event
from episodes_assets.failures import storable
from episodes_assets.postgres.connect import Connection

# How often a message is tried, for about half an hour, while later alerts of its key wait for it.
PATIENCE = 8


@dataclass(frozen=True)
class Message:
    """A message that a process delivers now.

    Attributes:
        message_id: Its id.
        message_uid: By which a receiver recognises it when it gets it again.
        alert_id: Of its alert, the same in all messages about it.
        key: Of its alert.
        kind: Of its alert.
        severity: Of its alert.
        event: What it tells of it.
        channel: Who is to get it.
        summary: One line.
        detail: More lines; may be empty.
        hint: What to do.
        opened_at: Since when the alert is open.
        created_at: Of when it tells.
        attempts: How often it was tried, this time included.
    """

    message_id: int
    message_uid: UUID
    alert_id: int
    key: str
    kind: str
    severity: str
    event: Event
    channel: ChannelName
    summary: str
    detail: str
    hint: str
    opened_at: dt.datetime
    created_at: dt.datetime
    attempts: int


def claim_message(
    connection: Connection, channels: Collection[ChannelName], now: dt.datetime, lease: dt.timedelta
) -> Message | None:
    """Take the oldest message that is due, for a bounded time, and count the attempt.

    Messages about an alert reach a channel in their order: one is not due while one before it is undelivered.
    Nor is one about a later alert of the same key, unless the one before it has failed 8 times.

    Args:
        connection: To `queue`, in autocommit mode.
        channels: Those that can be used.
        now: The time.
        lease: For how long nobody else takes it: more than an attempt lasts.
    """
    with connection.cursor(row_factory=class_row(Message)) as cursor:
        cursor.execute(
            """
            WITH first_of_alert AS MATERIALIZED (
                SELECT DISTINCT ON (alert_id, channel) message_id, channel, key, attempts
                FROM alerts.messages CROSS JOIN LATERAL (
                    SELECT key FROM alerts.alerts WHERE alerts.alert_id = messages.alert_id OFFSET 0
                ) AS alert
                WHERE delivered_at IS NULL ORDER BY alert_id, channel, message_id
            ), in_order AS (
                SELECT message_id, min(message_id) FILTER (WHERE attempts < %(patience)s)
                    OVER (PARTITION BY channel, key) AS first_of_key
                FROM first_of_alert
            ), due AS (
                SELECT message_id FROM alerts.messages
                WHERE delivered_at IS NULL AND not_before <= %(now)s AND channel = ANY (%(channels)s)
                    AND message_id = ANY (ARRAY(
                        SELECT message_id FROM in_order WHERE message_id <= coalesce(first_of_key, message_id)
                    ))
                ORDER BY message_id LIMIT 1 FOR UPDATE SKIP LOCKED
            ), claimed AS (
                UPDATE alerts.messages SET attempts = attempts + 1, not_before = %(until)s
                FROM due WHERE messages.message_id = due.message_id AND delivered_at IS NULL
                    AND not_before <= %(now)s
                RETURNING messages.*
            )
            SELECT message_id, message_uid, claimed.alert_id, key, kind, severity, event, channel,
                claimed.summary, claimed.detail, hint, coalesce(opened_at, created_at) AS opened_at,
                created_at, attempts
            FROM claimed CROSS JOIN LATERAL (
                SELECT key, kind, severity, hint, opened_at FROM alerts.alerts
                WHERE alerts.alert_id = claimed.alert_id OFFSET 0
            ) AS alert
            """,
            {"now": now, "until": now + lease, "channels": list(channels), "patience": PATIENCE},
        )
        found = cursor.fetchone()
    # The row has texts.
    return found and replace(found, event=Event(found.event), channel=ChannelName(found.channel))


def record_delivery(connection: Connection, message: Message, now: dt.datetime, problem: str = "") -> None:
    """Record that a message was delivered, whoever has taken it meanwhile, and whom it does not reach."""
    connection.execute(
        "UPDATE alerts.messages SET delivered_at = %s, problem = %s"
        " WHERE message_id = %s AND delivered_at IS NULL",
        [now, storable(problem) or None, message.message_id],
    )


def record_failure(connection: Connection, message: Message, problem: str, retry_at: dt.datetime) -> None:
    """Record why an attempt failed, unless somebody else has begun another one since."""
    connection.execute(
        "UPDATE alerts.messages SET problem = %s, not_before = %s"
        " WHERE message_id = %s AND attempts = %s AND delivered_at IS NULL",
        [storable(problem), retry_at, message.message_id, message.attempts],
    )

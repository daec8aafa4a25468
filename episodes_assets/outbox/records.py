"""Alerts on record (schema `alerts`), messages that follow, and when each process has evaluated them last.

It is a transactional outbox: a message is written in one transaction with the state of its alert, and sent
afterwards by whichever process comes first (`delivery.py`). Also here: the lease by which one of several web
servers watches the daemon (leader election), and deleting what is old. All times are by the queue's clock, so
that several machines agree. What is to be told is decided in `alerts/lifecycle.py`.
"""

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.alerts.conditions import Assessment, Kind
from episodes_assets.alerts.lifecycle import (
    ChannelName,
    Decision,
    Event,
    LastMessage,
    Recorded,
    State,
    decide,
)
from episodes_assets.failures import storable
from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.locks import LEDGER, limit_transaction, lock_row

# One web server of several watches. This begins the key of its row in the table of evaluators, and the
# application name of the session that it keeps open for as long as it watches.
_WATCHED_BY = "watched by "
# Both processes that decide hold the lock for milliseconds.
_LOCK_SECONDS = 10.0
KEEP_ENDED = dt.timedelta(days=90)
GIVE_UP_AFTER = dt.timedelta(days=7)
# More than the longest pause before another attempt.
TRIED_LATELY = dt.timedelta(hours=1)


class Evaluator:
    """The names of the processes that decide on alerts, as they are on record."""

    SENSOR = "alert_people"
    WEB_SERVER = "web server"


@dataclass(frozen=True)
class OpenAlert:
    """An alert that people are told of, for them to read.

    Attributes:
        key: Identifies it while it is open.
        kind: What it is about.
        severity: Whether somebody is needed now.
        summary: One line.
        detail: More lines; may be empty.
        hint: What to do.
        opened_at: Since when.
        seen_at: When it was observed last.
        waiting: How many messages about it are not delivered.
        problem: Why the last attempt to deliver one of them failed, or whom one that was delivered does not
            reach; None if there is no such thing.
    """

    key: str
    kind: str
    severity: str
    summary: str
    detail: str
    hint: str
    opened_at: dt.datetime
    seen_at: dt.datetime
    waiting: int
    problem: str | None


def read_clock(connection: Connection) -> dt.datetime:
    """The time by the queue's clock."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  it has no FROM
    found: dt.datetime = row[0]
    return found


def evaluate(
    connection: Connection,
    assessment: Assessment,
    channels: Collection[ChannelName],
    now: dt.datetime,
    remind_after: dt.timedelta,
    evaluator: str | None,
) -> list[Decision]:
    """Record which alerts are open, and the messages that follow.

    Whoever else does so at the same time waits: an alert is opened once and ended once.

    Args:
        connection: To `queue`, in autocommit mode.
        assessment: The alerts that are open by what was observed.
        channels: Those that are configured.
        now: The time.
        remind_after: How long after the last message a channel is told again.
        evaluator: Who decides, one of `Evaluator`; None if that is not to count as having looked.
    """
    with connection.transaction():
        limit_transaction(connection, _LOCK_SECONDS)
        lock_row(connection, LEDGER, "alerts")
        decisions = decide(read_recorded(connection), assessment, channels, now, remind_after)
        ids = _write_alerts(connection, decisions, now)
        _write_messages(connection, decisions, ids, now)
        if evaluator is not None:
            connection.execute(
                "INSERT INTO alerts.evaluations AS known (evaluator, evaluated_at) VALUES (%s, %s)"
                " ON CONFLICT (evaluator) DO UPDATE"
                " SET evaluated_at = greatest(known.evaluated_at, excluded.evaluated_at)",
                [evaluator, now],
            )
    return decisions


def read_recorded(connection: Connection) -> list[Recorded]:
    """All alerts that have not ended, with what each channel was told last.

    Those of a kind that only another release knows are left to it.
    """
    rows = connection.execute(
        """
        SELECT alerts.alert_id, key, kind, first_seen_at, opened_at, last.channel, last.event,
            last.delivered_at
        FROM alerts.alerts LEFT JOIN LATERAL (
            SELECT name AS channel, event, delivered_at
            FROM unnest(%(channels)s::text[]) AS name CROSS JOIN LATERAL (
                SELECT event, delivered_at FROM alerts.messages
                WHERE messages.alert_id = alerts.alert_id AND channel = name
                ORDER BY message_id DESC LIMIT 1
            ) AS newest
        ) AS last ON true
        WHERE resolved_at IS NULL AND kind = ANY (%(kinds)s) ORDER BY alert_id
        """,
        {"channels": list(ChannelName), "kinds": list(Kind)},
    ).fetchall()
    found: dict[int, Recorded] = {}
    for alert_id, key, kind, first_seen_at, opened_at, channel, event, delivered_at in rows:
        before = found.get(alert_id)
        told = {} if before is None else dict(before.told)
        if channel is not None:
            told[ChannelName(channel)] = LastMessage(Event(event), delivered_at)
        found[alert_id] = Recorded(alert_id, key, Kind(kind), first_seen_at, opened_at, told)
    return list(found.values())


def _write_alerts(connection: Connection, decisions: Sequence[Decision], now: dt.datetime) -> dict[str, int]:
    """Write the alerts themselves; returns the ids of new ones by their keys."""
    new = [each for each in decisions if each.recorded is None and each.alert is not None]
    rows = connection.execute(
        """
        INSERT INTO alerts.alerts
            (key, kind, severity, summary, detail, hint, first_seen_at, seen_at, opened_at)
        SELECT key, kind, severity, summary, detail, hint, %(now)s, %(now)s,
            CASE WHEN is_open THEN %(now)s END
        FROM unnest(%(keys)s::text[], %(kinds)s::text[], %(severities)s::text[], %(summaries)s::text[],
            %(details)s::text[], %(hints)s::text[], %(open)s::boolean[])
            AS new (key, kind, severity, summary, detail, hint, is_open)
        RETURNING key, alert_id
        """,
        {**_columns(new), "keys": [each.alert.key for each in new if each.alert], "now": now},
    ).fetchall()
    still = [each for each in decisions if each.recorded is not None and each.alert is not None]
    connection.execute(
        """
        UPDATE alerts.alerts SET severity = new.severity, summary = new.summary, detail = new.detail,
            hint = new.hint, seen_at = %(now)s,
            opened_at = coalesce(opened_at, CASE WHEN is_open THEN %(now)s END)
        FROM unnest(%(ids)s::bigint[], %(severities)s::text[], %(summaries)s::text[], %(details)s::text[],
            %(hints)s::text[], %(open)s::boolean[]) AS new (id, severity, summary, detail, hint, is_open)
        -- The second condition finds them by the key's index, whatever the planner does about the first.
        WHERE alert_id = id AND alert_id = ANY (%(ids)s)
        """,
        {**_columns(still), "ids": [each.recorded.alert_id for each in still if each.recorded], "now": now},
    )
    ended = {
        state: [each.recorded.alert_id for each in decisions if each.recorded and each.state is state]
        for state in (State.RESOLVED, State.FORGOTTEN)
    }
    connection.execute(
        "UPDATE alerts.alerts SET resolved_at = %s WHERE alert_id = ANY (%s)", [now, ended[State.RESOLVED]]
    )
    connection.execute("DELETE FROM alerts.alerts WHERE alert_id = ANY (%s)", [ended[State.FORGOTTEN]])
    return {str(key): int(alert_id) for key, alert_id in rows}


def _columns(decisions: Sequence[Decision]) -> dict[str, list[object]]:
    alerts = [(each.alert, each.state) for each in decisions if each.alert is not None]
    return {
        "kinds": [alert.kind for alert, _ in alerts],
        "severities": [alert.severity for alert, _ in alerts],
        "summaries": [storable(alert.summary) for alert, _ in alerts],
        "details": [storable(alert.detail) for alert, _ in alerts],
        "hints": [storable(alert.hint) for alert, _ in alerts],
        "open": [state is State.OPEN for _, state in alerts],
    }


def _write_messages(
    connection: Connection, decisions: Sequence[Decision], ids: dict[str, int], now: dt.datetime
) -> None:
    messages = [
        (
            each.recorded.alert_id if each.recorded else ids[each.alert.key if each.alert else ""],
            channel,
            event,
        )
        for each in decisions
        for channel, event in each.messages.items()
    ]
    connection.execute(
        """
        INSERT INTO alerts.messages (alert_id, channel, event, summary, detail, created_at, not_before)
        SELECT alert_id, channel, event, summary, detail, %(now)s, %(now)s
        FROM unnest(%(ids)s::bigint[], %(channels)s::text[], %(events)s::text[]) WITH ORDINALITY
            AS new (id, channel, event, number)
        CROSS JOIN LATERAL (
            SELECT alert_id, summary, detail FROM alerts.alerts WHERE alert_id = id OFFSET 0
        ) AS alert
        ORDER BY number
        """,
        {
            "ids": [alert_id for alert_id, _, _ in messages],
            "channels": [channel for _, channel, _ in messages],
            "events": [event for _, _, event in messages],
            "now": now,
        },
    )


def read_open_alerts(connection: Connection) -> list[OpenAlert]:
    """The alerts that people are told of, errors first, then the oldest."""
    with connection.cursor(row_factory=class_row(OpenAlert)) as cursor:
        cursor.execute(
            """
            SELECT key, kind, severity, summary, detail, hint, opened_at, seen_at, waiting, problem
            FROM alerts.alerts CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE delivered_at IS NULL) AS waiting, max(problem) AS problem FROM (
                    SELECT delivered_at, problem FROM alerts.messages
                    WHERE messages.alert_id = alerts.alert_id OFFSET 0
                ) AS told
            ) AS messages
            WHERE resolved_at IS NULL AND opened_at IS NOT NULL
            ORDER BY severity, opened_at, alert_id
            """
        )
        return cursor.fetchall()


@dataclass(frozen=True)
class OutboxFigures:
    """The outbox in numbers.

    Attributes:
        open: Open alerts by kind and severity.
        undelivered: Messages that are not delivered, by channel, of those that anybody sends over.
        oldest_seconds: How long the oldest of them has waited; None when none waits.
        evaluated_seconds: How long ago each process has looked last.
    """

    open: dict[tuple[str, ...], float]
    undelivered: dict[str, int]
    oldest_seconds: float | None
    evaluated_seconds: dict[str, float]


def read_figures(connection: Connection, channels: Collection[ChannelName]) -> OutboxFigures:
    """The outbox in numbers, as it is now.

    Messages to a channel that has been taken out of the settings wait until they are given up, and nobody is
    to be alarmed by them.

    Args:
        connection: To `queue`.
        channels: Those that are configured here. What another process has tried lately counts as well.
    """
    opened = connection.execute(
        "SELECT kind, severity, count(*) FROM alerts.alerts"
        " WHERE resolved_at IS NULL AND opened_at IS NOT NULL GROUP BY kind, severity"
    ).fetchall()
    waiting = connection.execute(
        "SELECT channel, count(*), extract(epoch FROM clock_timestamp() - min(created_at))::float8"
        " FROM alerts.messages WHERE delivered_at IS NULL GROUP BY channel"
        " HAVING channel = ANY (%s) OR bool_or(attempts > 0 AND not_before > clock_timestamp() - %s)",
        [list(channels), TRIED_LATELY],
    ).fetchall()
    return OutboxFigures(
        open={(str(kind), str(severity)): float(count) for kind, severity, count in opened},
        undelivered={str(channel): int(count) for channel, count, _ in waiting},
        oldest_seconds=max((float(seconds) for _, _, seconds in waiting), default=None),
        evaluated_seconds=read_evaluations(connection),
    )


def read_evaluations(connection: Connection) -> dict[str, float]:
    """How many seconds ago each process has looked for alerts last."""
    rows = connection.execute(
        "SELECT evaluator, greatest(extract(epoch FROM clock_timestamp() - evaluated_at)::float8, 0)"
        " FROM alerts.evaluations WHERE NOT starts_with(evaluator, %s)",
        [_WATCHED_BY],
    ).fetchall()
    return {str(evaluator): float(seconds) for evaluator, seconds in rows}


def name_session(connection: Connection, holder: str) -> None:
    """Let a session tell others that whoever may take the watch of the daemon lives.

    However a process ends, its sessions end with it, where its machine goes on.

    Args:
        connection: To `queue`; it is kept open for as long as the process may have the watch.
        holder: Who.
    """
    connection.execute("SELECT set_config('application_name', %s, false)", [f"{_WATCHED_BY}{holder}"])


def take_watch(connection: Connection, holder: str, lease: dt.timedelta) -> bool:
    """Take the watch of the daemon, or keep it: of several processes one has it.

    Args:
        connection: To `queue`, in autocommit mode.
        holder: Who takes it. It has a session of its name (`name_session`).
        lease: For how long whoever has it is left alone after having taken it last, while it has a session.

    Returns:
        Whether it is the holder's now.
    """
    with connection.transaction():
        limit_transaction(connection, _LOCK_SECONDS)
        lock_row(connection, LEDGER, "alerts")
        connection.execute(
            """
            DELETE FROM alerts.evaluations
            WHERE starts_with(evaluator, %s) AND (evaluated_at < clock_timestamp() - %s OR NOT EXISTS (
                -- Only those of the same role: others may have any name.
                SELECT FROM pg_stat_activity
                WHERE application_name = evaluator AND datname = current_database()
                    AND usename = session_user
            ))
            """,
            [_WATCHED_BY, lease],
        )
        row = connection.execute(
            "SELECT FROM alerts.evaluations WHERE starts_with(evaluator, %s) AND evaluator <> %s",
            [_WATCHED_BY, f"{_WATCHED_BY}{holder}"],
        ).fetchone()
        if row is not None:
            return False
        connection.execute(
            "INSERT INTO alerts.evaluations (evaluator, evaluated_at) VALUES (%s, clock_timestamp())"
            " ON CONFLICT (evaluator) DO UPDATE SET evaluated_at = excluded.evaluated_at",
            [f"{_WATCHED_BY}{holder}"],
        )
    return True


def give_watch_up(connection: Connection, holder: str) -> None:
    """Let another process take the watch at once."""
    connection.execute("DELETE FROM alerts.evaluations WHERE evaluator = %s", [f"{_WATCHED_BY}{holder}"])


def prune_alerts(connection: Connection) -> int:
    """Delete alerts that ended long ago, and give up messages that nobody could deliver for a week.

    A message that is given up to a channel which is not configured any more would wait for ever.

    Returns:
        How many alerts were deleted.
    """
    connection.execute(
        "DELETE FROM alerts.messages WHERE delivered_at IS NULL AND created_at < now() - %s", [GIVE_UP_AFTER]
    )
    return connection.execute(
        "DELETE FROM alerts.alerts WHERE resolved_at < now() - %s", [KEEP_ENDED]
    ).rowcount

"""Sessions of people who have logged in."""

import datetime as dt
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from episodes_assets.accounts.identity import Identity, Role, Way
from episodes_assets.accounts.random_tokens import digest, new_token
from episodes_assets.postgres.connect import Connection

# One statement for each request. A password's session has the role that its user has now, and ends with
# them. A session lasts as long as it was begun for, or shorter where that is what holds today. That it
# was seen is written rarely, but often enough that one in use does not time out.
_FIND = """
    WITH found AS (
        SELECT token_hash, sessions.name, coalesce(users.role, sessions.role) AS role, way,
            now() - seen_at > least(interval '30 seconds', least(idle, %(idle)s) / 4) AS is_stale
        FROM dashboard.sessions LEFT JOIN LATERAL (
            SELECT role, is_disabled FROM dashboard.users WHERE users.name = user_name OFFSET 0
        ) AS users ON true
        WHERE token_hash = %(token_hash)s
            AND now() - started_at < least(absolute, %(absolute)s)
            AND now() - seen_at < least(idle, %(idle)s)
            AND (user_name IS NULL OR NOT is_disabled)
    ), seen AS (
        UPDATE dashboard.sessions SET seen_at = now()
        WHERE token_hash = %(token_hash)s AND %(is_use)s AND EXISTS (SELECT FROM found WHERE is_stale)
    )
    SELECT name, role, way FROM found
"""


@dataclass(frozen=True)
class Lifetimes:
    """How long a session lasts.

    Attributes:
        absolute: From its beginning, however much it is used.
        idle: From when it was last used.
    """

    absolute: dt.timedelta
    idle: dt.timedelta


def start_session(
    connection: Connection, identity: Identity, lifetimes: Lifetimes, *, client: str = ""
) -> str:
    """Begin a session for somebody who has proved who they are.

    Args:
        connection: To the accounts.
        identity: Who.
        lifetimes: How long it lasts.
        client: What it is bound to: for any other client its token is nobody's.

    Returns:
        Its token, which is kept nowhere here. It is nobody's if the user has been removed meanwhile.
    """
    token = new_token()
    who = [identity.name, identity.role.value, identity.way.value]
    with suppress(psycopg.errors.ForeignKeyViolation):
        connection.execute(
            "INSERT INTO dashboard.sessions (token_hash, name, role, way, absolute, idle)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [_digest(token, client), *who, lifetimes.absolute, lifetimes.idle],
        )
    return token


def find_session(
    connection: Connection, token: str, lifetimes: Lifetimes, *, is_use: bool = True, client: str = ""
) -> Identity | None:
    """Whose session it is; None if it is nobody's, or over.

    Args:
        connection: To the accounts.
        token: What `start_session` gave.
        lifetimes: How long sessions last today; one that was begun for less lasts less.
        is_use: Whether somebody is using it just now, so that it is not idle.
        client: Who shows the token.
    """
    row = connection.execute(
        _FIND,
        {
            "token_hash": _digest(token, client),
            "absolute": lifetimes.absolute,
            "idle": lifetimes.idle,
            "is_use": is_use,
        },
    ).fetchone()
    return None if row is None else Identity(row[0], Role(row[1]), Way(row[2]))


def end_session(connection: Connection, token: str, *, client: str = "") -> None:
    """End a session for ever; only the client to which it is bound can."""
    connection.execute("DELETE FROM dashboard.sessions WHERE token_hash = %s", [_digest(token, client)])


def end_sessions_of(connection: Connection, name: str) -> int:
    """End all sessions of a name in any spelling, whichever way they were begun.

    Returns:
        How many there were, those that had timed out included.
    """
    return connection.execute("DELETE FROM dashboard.sessions WHERE lower(name) = lower(%s)", [name]).rowcount


def purge_sessions(connection: Connection) -> int:
    """Forget sessions that are over.

    Returns:
        How many.
    """
    return connection.execute(
        "DELETE FROM dashboard.sessions WHERE now() - started_at >= absolute OR now() - seen_at >= idle"
    ).rowcount


def _digest(token: str, client: str) -> bytes:
    return digest(f"{token}\0{client}" if client else token)

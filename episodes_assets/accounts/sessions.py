"""Sessions of people, service tokens of scripts, and the key that signs what a browser keeps during a login.

Tokens are random, and only digests of them are stored. A session is looked up together with its user at each
request, so a user who is disabled, demoted or removed is so from the next request on (revocation). Passwords
are `users`'; which request carries which token is `dashboard/auth/credentials.py`.
"""

import datetime as dt
import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from episodes_assets.accounts.identity import AuthMethod, Identity, Role, fold, require_name
from episodes_assets.errors import AccountExists, NoSuchAccount
from episodes_assets.postgres.connect import Connection


def new_token(prefix: str = "") -> str:
    """A token of 256 random bits in URL-safe characters."""
    return prefix + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """The SHA-256 of a token, which is stored in its place; 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


# One statement for each request. A session begun with a password has its user's current role, and is over
# when the user is removed or disabled. Of the lifetimes stored with it and today's the shorter count.
# `seen_at` is written at most every 30 seconds, or every quarter of the idle time where that is shorter.
_FIND_SESSION = """
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
    """Begin a session of an authenticated identity.

    Args:
        connection: To the accounts.
        identity: Whose session it is.
        lifetimes: How long it lasts.
        client: The client to which it is bound, so that the token is invalid for any other; empty: any.

    Returns:
        Its token, of which only a digest is stored. It is invalid if the user has been removed meanwhile.
    """
    token = new_token()
    who = [identity.name, identity.role.value, identity.method.value]
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
    """The identity of a session; None if the token is invalid or the session is over.

    Args:
        connection: To the accounts.
        token: What `start_session` gave.
        lifetimes: How long sessions last today; one that was begun for less lasts less.
        is_use: Whether this request counts as use, so that the idle time begins again.
        client: The client that sent the token.
    """
    row = connection.execute(
        _FIND_SESSION,
        {
            "token_hash": _digest(token, client),
            "absolute": lifetimes.absolute,
            "idle": lifetimes.idle,
            "is_use": is_use,
        },
    ).fetchone()
    return None if row is None else Identity(row[0], Role(row[1]), AuthMethod(row[2]))


def end_session(connection: Connection, token: str, *, client: str = "") -> bool:
    """Delete a session, unless it is bound to another client.

    Returns:
        Whether there was one.
    """
    deleted = connection.execute(
        "DELETE FROM dashboard.sessions WHERE token_hash = %s", [_digest(token, client)]
    ).rowcount
    return deleted > 0


def end_sessions_of(connection: Connection, name: str) -> int:
    """End all sessions of a name in any spelling, by whichever method they were begun.

    Returns:
        How many there were, those that had timed out included.
    """
    return connection.execute("DELETE FROM dashboard.sessions WHERE lower(name) = lower(%s)", [name]).rowcount


def purge_sessions(connection: Connection) -> int:
    """Delete sessions that are over.

    Returns:
        How many.
    """
    return connection.execute(
        "DELETE FROM dashboard.sessions WHERE now() - started_at >= absolute OR now() - seen_at >= idle"
    ).rowcount


def _digest(token: str, client: str) -> bytes:
    return digest(f"{token}\0{client}" if client else token)


# By which scanners for leaked secrets recognise a token.
PREFIX = "episodes_"
_FIND_BEARER = """
    WITH token AS MATERIALIZED (
        SELECT * FROM dashboard.service_tokens WHERE token_hash = %(token_hash)s
    ), found AS (
        SELECT name, role, coalesce(now() - last_used_at > interval '30 seconds', true) AS is_stale
        FROM token WHERE revoked_at IS NULL AND (expires_at IS NULL OR now() < expires_at)
    ), used AS (
        UPDATE dashboard.service_tokens SET last_used_at = now()
        WHERE token_hash = %(token_hash)s AND EXISTS (SELECT FROM found WHERE is_stale)
    )
    SELECT name, role FROM found
"""


@dataclass(frozen=True)
class ServiceToken:
    """One service token, without the token itself.

    Attributes:
        name: What it is for.
        role: What it allows.
        created_at: When it was made.
        expires_at: When it ends; None if never.
        last_used_at: When it was last used, to half a minute; None if never.
        revoked_at: When it was revoked; None if it was not.
    """

    name: str
    role: Role
    created_at: dt.datetime
    expires_at: dt.datetime | None
    last_used_at: dt.datetime | None
    revoked_at: dt.datetime | None


def create_token(connection: Connection, name: str, role: Role, expires_at: dt.datetime | None) -> str:
    """Make a service token; an expired one of that name is revoked.

    Returns:
        The token, of which only a digest is stored.

    Raises:
        BadAccount: If no token can have that name.
        AccountExists: If there is a valid one of that name.
    """
    name = require_name(name)
    token = new_token(PREFIX)
    with connection.transaction():
        connection.execute(
            "UPDATE dashboard.service_tokens SET revoked_at = now()"
            " WHERE name = %s AND revoked_at IS NULL AND expires_at <= now()",
            [name],
        )
        made = connection.execute(
            "INSERT INTO dashboard.service_tokens (token_hash, name, role, expires_at)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [digest(token), name, role.value, expires_at],
        )
        if made.rowcount != 1:
            raise AccountExists(
                f"there is a token {name} already",
                f"choose another name, or `episodes tokens revoke {name}`",
            )
    return token


def find_token(connection: Connection, token: str) -> Identity | None:
    """The identity of a service token; None if it is unknown, expired or revoked."""
    row = connection.execute(_FIND_BEARER, {"token_hash": digest(token)}).fetchone()
    return None if row is None else Identity(row[0], Role(row[1]), AuthMethod.TOKEN)


def revoke_token(connection: Connection, name: str) -> None:
    """Revoke a token; its row is kept.

    Raises:
        NoSuchAccount: If there is none of that name that is not revoked.
    """
    name = fold(name)
    revoked = connection.execute(
        "UPDATE dashboard.service_tokens SET revoked_at = now() WHERE name = %s AND revoked_at IS NULL",
        [name],
    )
    if revoked.rowcount != 1:
        raise NoSuchAccount(f"there is no token {name} to revoke", "see `episodes tokens list`")


def list_tokens(connection: Connection) -> list[ServiceToken]:
    """All tokens by name and age, revoked ones included."""
    found = connection.execute(
        "SELECT name, role, created_at, expires_at, last_used_at, revoked_at"
        " FROM dashboard.service_tokens ORDER BY name, created_at"
    )
    return [ServiceToken(name, Role(role), *rest) for name, role, *rest in found]


def signing_key(connection: Connection) -> str:
    """The key that signs cookies: random, made at first use, the same for every process."""
    connection.execute(
        "INSERT INTO dashboard.signing_key (key) SELECT %s"
        " WHERE NOT EXISTS (SELECT FROM dashboard.signing_key) ON CONFLICT DO NOTHING",
        [new_token()],
    )
    row = connection.execute("SELECT key FROM dashboard.signing_key").fetchone()
    assert row is not None  # noqa: S101  no role may delete it
    return str(row[0])

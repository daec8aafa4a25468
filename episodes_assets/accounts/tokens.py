"""Service tokens: what scripts prove themselves with."""

import datetime as dt
from dataclasses import dataclass

from episodes_assets.accounts import names
from episodes_assets.accounts.identity import Identity, Role, Way
from episodes_assets.accounts.random_tokens import digest, new_token
from episodes_assets.errors import AccountExists, NoSuchAccount
from episodes_assets.postgres.connect import Connection

# A scanner for leaked secrets knows it by that.
PREFIX = "episodes_"

_FIND = """
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
    """Make a token; it takes the place of an expired one of that name.

    Returns:
        The token, which is kept nowhere here.

    Raises:
        BadAccount: If it cannot be called that.
        AccountExists: If there is a valid one of that name.
    """
    name = names.require_name(name)
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
    """Whom a token stands for; None if it is none of ours, expired or revoked."""
    row = connection.execute(_FIND, {"token_hash": digest(token)}).fetchone()
    return None if row is None else Identity(row[0], Role(row[1]), Way.TOKEN)


def revoke_token(connection: Connection, name: str) -> None:
    """Let a token count no more; it stays on record.

    Raises:
        NoSuchAccount: If there is none of that name that is not revoked.
    """
    name = names.fold(name)
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

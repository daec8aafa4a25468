"""Who a request comes from: by the cookie of a session, or by a token."""

from dataclasses import dataclass, replace

from starlette.requests import HTTPConnection

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import Identity, Role
from episodes_assets.accounts.pool import AccountsAccess
from episodes_assets.dashboard.configuration import Configuration
from episodes_assets.dashboard.session_client import session_client

_LONGEST = 500


@dataclass(frozen=True)
class Proof:
    """Who somebody is, and what proved it.

    Attributes:
        identity: Who.
        is_cookie: Whether a session's cookie did, which browsers send unasked.
    """

    identity: Identity
    is_cookie: bool


def cookie_name(*, is_secure: bool) -> str:
    """What the session's cookie is called; no other host, and no page in the clear, can set `__Host-`."""
    return "__Host-episodes_session" if is_secure else "episodes_session"


def session_token(connection: HTTPConnection, *, is_secure: bool) -> str | None:
    """The token in the session's cookie, if there is one and no second of its name.

    Read from the header as a browser writes it. More lenient parsers take names of another spelling for
    this one, which any page in the clear may set, or of two cookies the last.
    """
    name = cookie_name(is_secure=is_secure)
    pairs = (part.partition("=") for line in connection.headers.getlist("cookie") for part in line.split(";"))
    found = [value.strip(" \t") for key, _, value in pairs if key.strip(" \t") == name]
    return found[0] or None if len(found) == 1 else None


async def identify(
    connection: HTTPConnection,
    accounts: AccountsAccess,
    configuration: Configuration,
    *,
    is_use: bool = True,
) -> Proof | None:
    """Who a request comes from; None if nobody can be told from it.

    With an Authorization header only that counts: a request with a wrong token is nobody's, whatever
    its cookie.

    Args:
        connection: The request.
        accounts: Sessions and tokens.
        configuration: How the dashboard is served.
        is_use: Whether somebody is using the session just now, which keeps it from timing out.

    Raises:
        psycopg.OperationalError: If the accounts' database is away.
        EpisodesError: If it is not ours to use.
    """
    headers = connection.headers.getlist("authorization")
    if headers:
        scheme, _, token = headers[0].partition(" ")
        if len(headers) > 1 or scheme.lower() != "bearer" or not _may_be_one(token.strip()):
            return None
        found = await accounts.run(sessions.find_token, token.strip())
        return _proof(found, configuration, is_cookie=False)
    session = session_token(connection, is_secure=configuration.is_secure)
    if session is None or not _may_be_one(session):
        return None
    found = await accounts.run(
        sessions.find_session,
        session,
        configuration.lifetimes,
        is_use=is_use,
        client=session_client(connection, configuration),
    )
    return _proof(found, configuration, is_cookie=True)


def _may_be_one(token: str) -> bool:
    return 0 < len(token) <= _LONGEST and token.isascii() and token.isprintable()


def _proof(identity: Identity | None, configuration: Configuration, *, is_cookie: bool) -> Proof | None:
    identity = configuration.ways.admit(identity) if identity else None
    if identity is None:
        return None
    if configuration.is_read_only:
        identity = replace(identity, role=Role.VIEWER)
    return Proof(identity, is_cookie=is_cookie)

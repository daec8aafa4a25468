"""Who a request comes from: by the cookie of a session, bound to its client, or by a bearer token.

Browsers send a cookie to every port of its host, so on a shared machine another user's server, on another
port, is handed the session of whoever is led to it. On loopback the kernel tells which user a connection
comes from, which such a server cannot change: there a session counts for the user alone who began it. Over
TLS nothing is bound: cookies are `Secure` then, and no other port gets them without a certificate for the
same name.

The identity has the role of now, not that of its login: of the user's row or of the settings, and a viewer's
where the dashboard is read-only. What a role may do is decided by `gate`.
"""

import ipaddress
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, replace

from starlette.requests import HTTPConnection

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import Identity, Role
from episodes_assets.accounts.pool import AccountsAccess
from episodes_assets.dashboard.configuration import Configuration

# Of linux/netlink.h, sock_diag.h and inet_diag.h.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBBxI")
_PORTS = struct.Struct("!HH")
_STATE_AT = 17
_USER_AT = 80
_LONGEST_ANSWER = 8_192
_TIMEOUT_SECONDS = 1.0
Address = tuple[str, int]


def session_client(connection: HTTPConnection, configuration: Configuration) -> str:
    """The client to which the session of a request is bound: a user of this machine; empty: any client."""
    client, server = connection.client, connection.scope.get("server")
    if configuration.is_secure or client is None or not server or not _is_loopback(client.host):
        return ""
    try:
        user = user_at((client.host, client.port), (server[0], server[1]))
    except (OSError, AttributeError):  # not Linux, or a kernel without sock_diag
        return ""
    return f"user {'?' if user is None else user}"


def user_at(client: Address, server: Address) -> int | None:
    """The user id that owns the client's socket of a connection within this machine.

    It is read by netlink's sock_diag, which takes some microseconds; /proc/net/tcp takes thousands.

    Args:
        client: Address and port of the client's end.
        server: Address and port of our end.

    Returns:
        None if there is no such connection, or if it is closed in either direction: the kernel may report
        another user for a closed socket.

    Raises:
        OSError: If the kernel has no sock_diag.
        AttributeError: If this is not Linux.
    """
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    ends = [socket.inet_pton(family, host).ljust(16, b"\0") for host, _ in (client, server)]
    question = (
        _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 1 << _ESTABLISHED)
        + _PORTS.pack(client[1], server[1])
        + b"".join(ends)
        + bytes(4)  # any interface
        + b"\xff" * 8  # no cookie of the kernel's
    )
    header = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_TIMEOUT_SECONDS)
        kernel.send(header + question)
        answer = kernel.recv(_LONGEST_ANSWER)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY or answer[_STATE_AT] != _ESTABLISHED:
        return None
    (user,) = struct.unpack_from("=I", answer, _USER_AT)
    return int(user)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


_LONGEST = 500
# A request waits so long for the accounts, which are asked before anything else.
ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Credential:
    """An authenticated identity.

    Attributes:
        identity: The user or service token.
        is_cookie: Whether by a session's cookie, which browsers also send with forged requests (CSRF).
    """

    identity: Identity
    is_cookie: bool


def cookie_name(*, is_secure: bool) -> str:
    """The name of the session's cookie; with `__Host-` it can only be set by this host, and over TLS."""
    return "__Host-episodes_session" if is_secure else "episodes_session"


def session_token(connection: HTTPConnection, *, is_secure: bool) -> str | None:
    """The token in the session's cookie; None without one, or with two of its name (cookie tossing).

    The header is parsed strictly, as browsers write it: lenient parsers accept other spellings of the name,
    which a page without TLS could set, or take the last of two cookies.
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
) -> Credential | None:
    """Authenticate a request; None if it has no valid credential.

    With an Authorization header only that counts: a wrong token is refused whatever the cookie.

    Args:
        connection: The request.
        accounts: Sessions and tokens.
        configuration: How the dashboard is served.
        is_use: Whether the request counts as use of the session, so that the idle time begins again.

    Raises:
        psycopg.OperationalError: If the accounts' database does not answer.
        EpisodesError: If it does not answer in time, or belongs to another environment or release.
    """
    headers = connection.headers.getlist("authorization")
    if headers:
        scheme, _, token = headers[0].partition(" ")
        if len(headers) > 1 or scheme.lower() != "bearer" or not _may_be_one(token.strip()):
            return None
        found = await accounts.run_within(ANSWER_SECONDS, sessions.find_token, token.strip())
        return _credential(found, configuration, is_cookie=False)
    session = session_token(connection, is_secure=configuration.is_secure)
    if session is None or not _may_be_one(session):
        return None
    found = await accounts.run_within(
        ANSWER_SECONDS,
        sessions.find_session,
        session,
        configuration.lifetimes,
        is_use=is_use,
        client=session_client(connection, configuration),
    )
    return _credential(found, configuration, is_cookie=True)


def _may_be_one(token: str) -> bool:
    return 0 < len(token) <= _LONGEST and token.isascii() and token.isprintable()


def _credential(
    identity: Identity | None, configuration: Configuration, *, is_cookie: bool
) -> Credential | None:
    identity = configuration.auth_methods.admit(identity) if identity else None
    if identity is None:
        return None
    if configuration.is_read_only:
        identity = replace(identity, role=Role.VIEWER)
    return Credential(identity, is_cookie=is_cookie)

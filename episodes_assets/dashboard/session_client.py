"""What a session's cookie is bound to besides its token: the operating-system user at the other end.

Browsers send a cookie to every port of its host, so on a shared machine another user's server, on another
port, is handed the session of whoever is led to it. On loopback the kernel tells which user a connection
comes from, which such a server cannot change: there a session counts for the user alone who began it. Over
TLS nothing is bound: cookies are `Secure` then, and no other port gets them without a certificate for the
same name.
"""

import ipaddress
import socket
import struct
from contextlib import suppress

from starlette.requests import HTTPConnection

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
_PATIENCE_SECONDS = 1.0

Address = tuple[str, int]


def session_client(connection: HTTPConnection, configuration: Configuration) -> str:
    """What a session that this request begins or shows is bound to; empty where there is nothing to tell."""
    client, server = connection.client, connection.scope.get("server")
    if configuration.is_secure or client is None or not server or not _is_loopback(client.host):
        return ""
    try:
        user = user_at((client.host, client.port), (server[0], server[1]))
    except (OSError, AttributeError):  # another system than Linux, or one that does not answer such questions
        return ""
    return f"user {'?' if user is None else user}"


def user_at(client: Address, server: Address) -> int | None:
    """The user id of whoever holds the client's end of a connection on this machine.

    Asks the kernel (sock_diag), which takes some microseconds; /proc/net/tcp takes thousands.

    Args:
        client: Address and port at that end.
        server: Address and port at ours.

    Returns:
        None if there is no such connection, or if it is not open in both directions: who has closed it may
        be taken for another user.

    Raises:
        OSError: If the kernel does not answer such questions.
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
        kernel.settimeout(_PATIENCE_SECONDS)
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

"""Serves the dashboard until it is told to stop."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from episodes_assets.dashboard.configuration import Configuration
from episodes_assets.dashboard.connections import ConnectionLimits, Connections, LimitedListener
from episodes_assets.dashboard.graphql_socket import LONGEST_MESSAGE
from episodes_assets.dashboard.http_protocol import ServerConfig
from episodes_assets.errors import ProcessFailed

# Open WebSockets and slow answers do not hold up a restart for longer.
LEAVE_SECONDS = 5
_WAITING_CONNECTIONS = 2_048


def serve(application: ASGIApp, configuration: Configuration, listener: LimitedListener) -> None:
    """Answer whoever calls, until SIGTERM or Ctrl-C; then return, so that the caller can tidy up."""
    server = uvicorn.Server(server_configuration(application, configuration, listener.connections))

    # uvicorn sends itself the signal once more when it has stopped, which would end the process there.
    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def listening(
    configuration: Configuration, limits: ConnectionLimits | None = None
) -> Iterator[LimitedListener]:
    """A socket on the dashboard's address; who calls before it is served waits.

    Args:
        configuration: Where.
        limits: Of the connections it takes; None for the usual ones.

    Raises:
        ProcessFailed: If the address is taken or not this machine's.
    """
    host, port = configuration.host, configuration.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        plain = socket.create_server((host, port), family=family, backlog=_WAITING_CONNECTIONS)
    except OSError as error:
        raise ProcessFailed(
            f"cannot listen on {host}, port {port} ({error.strerror or error})",
            "choose another with --port or --host",
        ) from error
    with LimitedListener(plain.family, plain.type, plain.proto, fileno=plain.detach()) as listener:
        listener.connections = Connections(limits or ConnectionLimits(), configuration.trusted_proxies)
        yield listener


def server_configuration(
    application: ASGIApp, configuration: Configuration, connections: Connections
) -> uvicorn.Config:
    """How uvicorn is to serve it."""
    return ServerConfig(
        application,
        connections,
        host=configuration.host,
        port=configuration.port,
        log_level="warning",
        log_config=None,  # its lines go where all others of this process do
        ssl_certfile=configuration.certificate,
        ssl_keyfile=str(configuration.key) if configuration.key else None,
        proxy_headers=bool(configuration.trusted_proxies),
        forwarded_allow_ips=list(configuration.trusted_proxies),
        server_header=False,
        ws_max_size=LONGEST_MESSAGE,
        timeout_graceful_shutdown=LEAVE_SECONDS,
    )

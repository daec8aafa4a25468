"""Serves the dashboard until it is stopped, within limits of connections, size, count and time.

Protects against slowloris and other slow or idle clients in each phase: the TLS handshake, a request's head
and body, the next request, reading the response. A connection is counted from the moment it is accepted until
its socket is closed. h11 limits the size of an incomplete head; this module limits what h11 does not: the
size of a head that arrives at once, the number of headers, and the time for each phase. The time for a body
is limited in `auth/gate.py`.
"""

import asyncio
import contextlib
import ipaddress
import re
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from episodes_assets.accounts.throttle import network_of
from episodes_assets.dashboard.auth.graphql_socket import LONGEST_MESSAGE
from episodes_assets.dashboard.certificate import Certificate
from episodes_assets.dashboard.configuration import Configuration
from episodes_assets.errors import ProcessFailed


@dataclass(frozen=True)
class ConnectionLimits:
    """How much the connections may take.

    Attributes:
        connections: Open at once. Each takes a file, of which a process has 1,024 by default.
        per_network: Of these, from one address, or from one /64 of IPv6.
        request_seconds: From being accepted, or from a response, until a whole request head is there.
        write_seconds: Until a client that does not read has to go on reading.
        head_bytes: Of a request line and its headers.
        headers: How many.
        sweep_seconds: How often overdue connections are looked for.
    """

    connections: int = 500
    per_network: int = 250
    request_seconds: float = 20.0
    write_seconds: float = 30.0
    head_bytes: int = 32_768
    headers: int = 100
    sweep_seconds: float = 1.0


class OpenConnection:
    """One connection, with the deadline of the phase that it is in.

    Args:
        accepted: Its socket.
        network: Its client's network; None for a trusted proxy, whose clients share an address.
        limits: How long it may take.
    """

    def __init__(self, accepted: socket.socket, network: str | None, limits: ConnectionLimits) -> None:
        self.network = network
        self.waits_since: float | None = None
        self.socket = accepted
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._request_due: float | None = None
        self._write_due: float | None = None
        self.wait()

    def connected(self, transport: asyncio.Transport) -> None:
        """Note that it is ready for requests: its TLS handshake, if any, is done."""
        self._transport = transport

    def wait(self) -> None:
        """Note that a request's head is awaited; its deadline runs from the first call on."""
        if self._request_due is None:
            self.waits_since = time.monotonic()
            self._request_due = self.waits_since + self._limits.request_seconds

    def receive_body(self) -> None:
        """Note that a head is complete and the body is not, whose reader has a time limit of its own."""
        self._request_due = None

    def work(self) -> None:
        """Note that the application works on a whole request or a WebSocket: the client has no deadline."""
        self.waits_since = self._request_due = None

    def stall(self) -> None:
        """Note that the client does not read as fast as we write; it has a deadline to go on."""
        self._write_due = time.monotonic() + self._limits.write_seconds

    def flow(self) -> None:
        """Note that the client reads again."""
        self._write_due = None

    def is_overdue(self, now: float) -> bool:
        """Whether a deadline is over; with output still to be written, that of writing counts."""
        transport = self._transport
        is_late = self._request_due is not None and now > self._request_due
        if transport is None or transport.get_write_buffer_size() == 0:
            self._write_due = None
            return is_late
        if self._write_due is None and (is_late or transport.is_closing()):
            self.stall()
        return self._write_due is not None and now > self._write_due

    def end(self) -> None:
        """Close it at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()
            return
        # In its TLS handshake, which ends when there is nothing more to read.
        with suppress(OSError):  # the client has gone already
            self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """All open connections; when a limit is reached, the one that has been waiting longest is closed.

    Args:
        limits: How many, and how long.
        proxies: Addresses and networks of trusted proxies, to which the limit for one network does not apply.
    """

    def __init__(self, limits: ConnectionLimits, proxies: Iterable[str] = ()) -> None:
        self.limits = limits
        self._proxies = [ipaddress.ip_network(each) for each in proxies]
        self._open: dict[Any, OpenConnection] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, accepted: socket.socket, address: Any) -> bool:  # noqa: ANN401  as sockets have it
        """Add a new connection; if a limit is reached, one that awaits a request is closed for it.

        Returns:
            False if a limit is reached and no connection awaits a request.
        """
        network = self._network(str(address[0]))
        same = sum(each.network == network for each in self._open.values()) if network else 0
        if same >= self.limits.per_network and not self._end_longest_waiting(network):
            return False
        if len(self._open) >= self.limits.connections and not self._end_longest_waiting():
            return False
        self._open[address] = OpenConnection(accepted, network, self.limits)
        if self._sweeper is None:
            self._sweep_later()
        return True

    def of(self, address: Any) -> OpenConnection | None:  # noqa: ANN401  as sockets have it
        """The connection of a client's address and port; None if it was closed for another one."""
        return self._open.get(address)

    def forget(self, closed: socket.socket, address: Any) -> None:  # noqa: ANN401  as sockets have it
        """Remove a connection that is closed."""
        if (found := self._open.get(address)) is not None and found.socket is closed:
            del self._open[address]

    def _network(self, address: str) -> str | None:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return None if any(parsed in proxy for proxy in self._proxies) else network_of(str(parsed))

    def _end_longest_waiting(self, network: str | None = None) -> bool:
        """Close the connection that has awaited a request longest, of one network or of all.

        Returns:
            Whether there was one.
        """
        waiting = [
            (each.waits_since, address)
            for address, each in self._open.items()
            if each.waits_since is not None and (network is None or each.network == network)
        ]
        if not waiting:
            return False
        self._open.pop(min(waiting)[1]).end()
        return True

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self.limits.sweep_seconds, self._sweep) if self._open else None

    def _sweep(self) -> None:
        now = time.monotonic()
        for each in list(self._open.values()):
            if each.is_overdue(now):
                each.end()
        self._sweep_later()


class LimitedListener(socket.socket):
    """A listening socket that enforces the limits on connections.

    asyncio gets each connection from `accept`, before TLS and before a protocol of ours is created.
    """

    connections: Connections

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            ConnectionAbortedError: If it exceeds a limit, and has been closed; asyncio then goes on.
        """
        plain, address = super().accept()
        accepted = _CountedSocket(plain, address, self.connections)
        if not self.connections.admit(accepted, address):
            accepted.close()
            raise ConnectionAbortedError
        return accepted, address


class _CountedSocket(socket.socket):
    """A connection's socket, which is counted until it is closed."""

    def __init__(self, accepted: socket.socket, address: Any, connections: Connections) -> None:  # noqa: ANN401
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._address = address
        self._connections = connections

    def close(self) -> None:
        """Close it, and remove it from the open connections."""
        super().close()
        self._connections.forget(self, self._address)


CERTIFICATE_SECONDS = 10
_BLANK_LINE = re.compile(rb"\n\r?\n")
_TOO_LARGE = 431


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, with the connections that it shares with the listener.

    Args:
        application: What is served.
        connections: Those of the listener.
        certificate: What it ends TLS with; None where it does not.
        options: Further ones, as uvicorn has them.
    """

    def __init__(
        self,
        application: ASGIApp,
        connections: Connections,
        certificate: Certificate | None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(
            application,
            callback_notify=None if certificate is None else self._renew_certificate,
            timeout_notify=CERTIFICATE_SECONDS,
            # uvloop does not call the listener's `accept`.
            loop="asyncio",
            http=LimitedHttp,
            ws=LimitedWebSocket,
            **options,
        )
        self.connections = connections
        self._certificate = certificate

    async def _renew_certificate(self) -> None:
        """What uvicorn calls every few seconds."""
        if self._certificate is not None and self.ssl is not None:
            self._certificate.renew(self.ssl)


class _Backpressure(asyncio.BaseProtocol):
    """A mixin that notes when the client does not read; it must precede uvicorn's protocol in the bases."""

    _open: OpenConnection | None = None

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        if self._open is not None:
            self._open.stall()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self._open is not None:
            self._open.flow()


class LimitedHttp(_Backpressure, H11Protocol):
    """A connection that is closed when the client takes too long, and refused when a head is too large."""

    def __init__(self, config: uvicorn.Config, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(config, *arguments, **options)
        self.conn = _LimitedParser(_connections(config).limits)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        """The connection is ready for requests."""
        super().connection_made(transport)
        self._open = _find(self.config, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        """The application has answered, so the next request is awaited."""
        super().on_response_complete()
        self._follow()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The connection becomes a WebSocket."""
        if self._open is not None:
            self._open.work()
            self._open = None
        super().handle_websocket_upgrade(event)

    def _follow(self) -> None:
        """Note which part of a request is awaited."""
        if self._open is None:
            return
        if self.conn.their_state is h11.IDLE or (self.cycle is not None and self.cycle.response_complete):
            self._open.wait()
        elif self.conn.their_state is h11.SEND_BODY:
            self._open.receive_body()
        else:
            self._open.work()


class LimitedWebSocket(_Backpressure, WebSocketsSansIOProtocol):
    """A WebSocket that is closed when the client does not read; uvicorn's pings detect a dead client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection has become a WebSocket."""
        super().connection_made(transport)
        self._open = _find(self.config, self.transport)


class _LimitedParser(h11.Connection):
    """h11's parser, which looks at the size of each head before it reads it."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__(h11.SERVER, limits.head_bytes)
        self._limits = limits

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next part of a request.

        Raises:
            h11.RemoteProtocolError: If it is none, or larger than it may be.
        """
        if self.their_state is h11.IDLE:
            received, _ = self.trailing_data
            end = _BLANK_LINE.search(received)
            size = end.end() if end else len(received)
            # A request line and a blank one besides the headers.
            if size > self._limits.head_bytes or received.count(b"\n", 0, size) > self._limits.headers + 2:
                raise h11.RemoteProtocolError("too many or too long headers", error_status_hint=_TOO_LARGE)
        return super().next_event()


def _connections(config: uvicorn.Config) -> Connections:
    assert isinstance(config, ServerConfig)  # noqa: S101  no other names these protocols
    return config.connections


def _find(config: uvicorn.Config, transport: asyncio.Transport) -> OpenConnection | None:
    """The open connection of a transport; a transport whose connection was closed for another is aborted."""
    found = _connections(config).of(transport.get_extra_info("peername"))
    if found is None:
        transport.abort()
    else:
        found.connected(transport)
    return found


# How long open WebSockets and slow answers may delay the end of the process.
LEAVE_SECONDS = 5
_WAITING_CONNECTIONS = 2_048


def serve(application: ASGIApp, configuration: Configuration, listener: LimitedListener) -> None:
    """Serve until SIGTERM or Ctrl-C; then return, so that the caller can clean up."""
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
    """A listening socket on the dashboard's address; connections wait in its backlog until it is served.

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
    """The configuration of uvicorn for the dashboard."""
    certificate, key = configuration.certificate, configuration.key
    return ServerConfig(
        application,
        connections,
        # Before uvicorn reads them, so that no change in between is missed.
        Certificate(certificate, key) if certificate is not None and key is not None else None,
        host=configuration.host,
        port=configuration.port,
        log_level="warning",
        log_config=None,  # it logs as the rest of this process does
        ssl_certfile=certificate,
        ssl_keyfile=key,
        proxy_headers=bool(configuration.trusted_proxies),
        forwarded_allow_ips=list(configuration.trusted_proxies),
        server_header=False,
        ws_max_size=LONGEST_MESSAGE,
        timeout_graceful_shutdown=LEAVE_SECONDS,
    )

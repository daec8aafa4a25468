"""HTTP and WebSockets as uvicorn serves them, within limits of size, count and time.

h11 limits what an incomplete head may take; here is what it leaves open: the size of a head that arrives at
once, the number of headers, and how long a client may take for each part of a request and for reading the
response. What becomes of those who take longer is decided in `connections`.
"""

import asyncio
import re
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from episodes_assets.dashboard.connections import ConnectionLimits, Connections, OpenConnection

_BLANK_LINE = re.compile(rb"\n\r?\n")
_TOO_LARGE = 431


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, with the connections that it shares with the listener."""

    def __init__(self, application: ASGIApp, connections: Connections, **options: Any) -> None:  # noqa: ANN401
        super().__init__(
            application,
            # uvloop would accept connections past the listener.
            loop="asyncio",
            http=LimitedHttp,
            ws=LimitedWebSocket,
            **options,
        )
        self.connections = connections


class _Backpressure(asyncio.BaseProtocol):
    """Notes when the client does not read; to be named before uvicorn's protocol."""

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
    """A WebSocket that is closed when the client does not read; pings find those who are gone."""

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
    """What is counted as this connection; one that had to go meanwhile is closed."""
    found = _connections(config).of(transport.get_extra_info("peername"))
    if found is None:
        transport.abort()
    else:
        found.connected(transport)
    return found

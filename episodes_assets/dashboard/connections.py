"""The connections to the web server: how many there are, from where, and how long each may keep us waiting.

Protects against slowloris and other slow or idle clients, whatever they are slow at: the TLS handshake, a
request's head or body, the next request, reading the response. A connection is counted from the moment it is
accepted until its socket is closed. Which bytes make a request is `http_protocol`'s, how long a body may take
`request_body`'s.
"""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from episodes_assets.accounts.throttle import network_of


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
    """One connection, and what it is at.

    Args:
        accepted: Its socket.
        network: Where it comes from; None where that is a proxy, whose clients share an address.
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
        """It is ready for requests; its TLS handshake, if any, is done."""
        self._transport = transport

    def wait(self) -> None:
        """A request's head is awaited: the time for it runs from the first call on."""
        if self._request_due is None:
            self.waits_since = time.monotonic()
            self._request_due = self.waits_since + self._limits.request_seconds

    def receive_body(self) -> None:
        """A head is complete and the body is not; whoever reads that limits the time."""
        self._request_due = None

    def work(self) -> None:
        """A whole request is there, or a WebSocket is open: it is ours to end."""
        self.waits_since = self._request_due = None

    def stall(self) -> None:
        """The client does not read as fast as we write."""
        self._write_due = time.monotonic() + self._limits.write_seconds

    def flow(self) -> None:
        """The client reads again."""
        self._write_due = None

    def is_overdue(self, now: float) -> bool:
        """Whether it has kept us waiting for too long; what is still to be written gets its time first."""
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
    """All open connections; where there are too many, the one that has kept us waiting longest has to go.

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
        """Count a new connection, at the cost of one that waits where there are too many.

        Returns:
            False if there are too many and each is at work.
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
        """The connection of a client's address and port; None if it had to go in the meantime."""
        return self._open.get(address)

    def forget(self, closed: socket.socket, address: Any) -> None:  # noqa: ANN401  as sockets have it
        """A connection is closed."""
        if (found := self._open.get(address)) is not None and found.socket is closed:
            del self._open[address]

    def _network(self, address: str) -> str | None:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return None if any(parsed in proxy for proxy in self._proxies) else network_of(str(parsed))

    def _end_longest_waiting(self, network: str | None = None) -> bool:
        """Close the connection that has kept us waiting longest, of one network or of all.

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
    """A listening socket that hands out no more connections than there may be.

    asyncio takes each connection from `accept`, before TLS and before any protocol of ours knows of it.
    """

    connections: Connections

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            ConnectionAbortedError: If it is one too many, and closed; asyncio then takes the next.
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
        """Close it, and count it no more."""
        super().close()
        self._connections.forget(self, self._address)

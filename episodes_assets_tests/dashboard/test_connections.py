"""Whoever is slow, idle or too long at a request is cut off, and everybody else is served at once."""

import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import psutil
import pytest
from starlette.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.auth import gate, graphql_socket
from episodes_assets.dashboard.configuration import Configuration, read_configuration
from episodes_assets.dashboard.server import ConnectionLimits
from episodes_assets.settings import load_settings
from episodes_assets_tests.dashboard.served import THIS_USER, Dashboard, serving
from episodes_assets_tests.support.certificates import certificate_for
from episodes_assets_tests.support.eventually import eventually

LOOPBACK = "127.0.0.1"
SHORT = ConnectionLimits(request_seconds=0.5, write_seconds=0.5, sweep_seconds=0.05)
PATIENCE = 10.0
HEAD = b"GET /login HTTP/1.1\r\nHost: localhost\r\n"
MEGABYTE = 1 << 20


@pytest.fixture
def configuration() -> Configuration:
    return read_configuration(load_settings(), host=LOOPBACK, port=0)


@contextmanager
def calling(port: int, source: str = LOOPBACK) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE, source_address=(source, 0)) as client:
        yield client


def ended(client: socket.socket, trickle: bytes = b"") -> float:
    """The seconds until the server closes a connection, on which a client sends so slowly."""
    began = time.monotonic()
    client.settimeout(0.05)
    while time.monotonic() - began < PATIENCE:
        try:
            if client.recv(65_536) == b"":
                return time.monotonic() - began
        except TimeoutError:
            with contextlib.suppress(ConnectionError):
                client.sendall(trickle)
        except ConnectionError:
            return time.monotonic() - began
    pytest.fail("it is still open")


def answer(client: socket.socket) -> bytes:
    """All that comes before the server closes the connection."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65_536):
            received += part
    return bytes(received)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, whatever is asked."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


async def huge(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers more than there is room for on the way, over HTTP and over a WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        for _ in range(100):
            await send({"type": "websocket.send", "bytes": bytes(MEGABYTE)})
            await anyio.sleep(0)
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": bytes(MEGABYTE), "more_body": True})
            await anyio.sleep(0)


async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
    """Works on a request for /wait until its client goes, and answers others at once."""
    if scope["type"] == "http" and scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await nothing(scope, receive, send)


def test_endless_headers_are_refused_early(configuration: Configuration) -> None:
    process = psutil.Process()
    line = b"X-Long: " + b"x" * (MEGABYTE - 10) + b"\r\n"
    with serving(nothing, configuration) as port:
        for head in (HEAD, b"GET /"):
            with calling(port) as client:
                before, sent = process.memory_info().rss, 0
                with contextlib.suppress(ConnectionError):
                    client.sendall(head)
                    for _ in range(64):
                        client.sendall(line if head == HEAD else b"x" * MEGABYTE)
                        sent += MEGABYTE
            assert sent < 16 * MEGABYTE
            assert process.memory_info().rss - before < 16 * MEGABYTE


@pytest.mark.parametrize("at_once", [True, False])
def test_the_size_and_number_of_headers_are_limited(configuration: Configuration, at_once: bool) -> None:
    limits = ConnectionLimits()
    end = b"Connection: close\r\n\r\n"

    def status(headers: bytes) -> bytes:
        with calling(port) as client:
            if at_once:
                client.sendall(HEAD + headers + end)
            else:
                with contextlib.suppress(ConnectionError):
                    for start in range(0, len(headers), 1_000):
                        client.sendall((HEAD if start == 0 else b"") + headers[start : start + 1_000])
                    client.sendall(end)
            return answer(client)[:12]

    with serving(nothing, configuration) as port:
        assert status(b"a: b\r\n" * (limits.headers - 2)) == b"HTTP/1.1 204"
        assert status(b"a: b\r\n" * (limits.headers + 1)) in (b"HTTP/1.1 400", b"")
        assert status(b"a: " + b"x" * (limits.head_bytes - 200) + b"\r\n") == b"HTTP/1.1 204"
        assert status(b"a: " + b"x" * limits.head_bytes + b"\r\n") in (b"HTTP/1.1 400", b"")
        # Also of a request that follows another one.
        with calling(port) as client:
            client.sendall(HEAD + b"\r\n" + HEAD + b"a: b\r\n" * 200 + b"\r\n")
            assert b"HTTP/1.1 400" in answer(client)


@pytest.mark.parametrize(
    ("begin", "trickle"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (b"G", b""),
        (b"GET /", b"x"),
        (HEAD, b"a: b\r\n"),
        (HEAD + b"\r\n", b""),
        (HEAD + b"\r\n", b"G"),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
        (HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"a: b\r\n"),
    ],
    ids=["silent", "blank lines", "half-open", "request line", "headers", "after a response",
         "next request", "a body nobody reads", "WebSocket handshake"],
)  # fmt: skip
def test_the_slow_are_cut_off(configuration: Configuration, begin: bytes, trickle: bytes) -> None:
    with serving(nothing, configuration, SHORT) as port, calling(port) as client:
        client.sendall(begin)
        assert ended(client, trickle) < 10


@pytest.mark.slow
def test_a_slow_body_is_refused(
    dashboard: Dashboard, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LONGEST_SECONDS", 0.5)
    head = (
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 9000\r\n\r\n"
    )
    with serving(dashboard.app, configuration, SHORT) as port, calling(port) as client:
        client.sendall(head)
        assert ended(client, b"x") < 10


@pytest.mark.parametrize("begin", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "half a hello"])
def test_a_slow_tls_handshake_is_cut_off(configuration: Configuration, tmp_path: Path, begin: bytes) -> None:
    pem, key = certificate_for(LOOPBACK, tmp_path / "tls")
    secure = replace(configuration, certificate=pem, key=key)
    trusting = ssl.create_default_context(cafile=str(pem))
    with serving(nothing, secure, SHORT) as port, calling(port) as client:
        client.sendall(begin)
        assert ended(client) < 10
        with calling(port) as plain, trusting.wrap_socket(plain, server_hostname=LOOPBACK) as shaken:
            assert ended(shaken) < 10
        assert httpx2.get(f"https://{LOOPBACK}:{port}/", verify=trusting).status_code == 204


def test_who_does_not_read_is_cut_off(configuration: Configuration) -> None:
    def has_gone(port: int) -> bool:
        state = [each.status for each in psutil.net_connections() if each.laddr and each.laddr.port == port]
        return psutil.CONN_ESTABLISHED not in state

    with serving(huge, configuration, SHORT) as port:
        with calling(port) as client:
            client.sendall(HEAD + b"\r\n")
            client.recv(1)
            eventually(lambda: has_gone(port))
        with connect(f"ws://{LOOPBACK}:{port}/", max_size=None, compression=None, close_timeout=0.1) as talk:
            talk.recv(timeout=PATIENCE)
            eventually(lambda: has_gone(port))


def test_a_websocket_that_says_nothing_is_closed(
    dashboard: Dashboard, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphql_socket, "FIRST_MESSAGE_SECONDS", 0.5)
    token = dashboard.session(Role.VIEWER, client=THIS_USER)
    with serving(dashboard.app, configuration, SHORT) as port:

        def opened() -> object:
            return connect(
                f"ws://{LOOPBACK}:{port}/graphql",
                origin=Origin(f"http://{LOOPBACK}:{port}"),
                subprotocols=[Subprotocol("graphql-ws")],
                additional_headers={"Cookie": f"episodes_session={token}"},
            )

        with opened() as silent, pytest.raises(ConnectionClosed) as end:  # type: ignore[attr-defined]
            silent.recv(timeout=PATIENCE)
        assert end.value.rcvd is not None
        assert end.value.rcvd.reason == "no message"
        with opened() as talk:  # type: ignore[attr-defined]
            talk.send('{"type": "connection_init"}')
            assert talk.recv(timeout=PATIENCE) == '{"type":"connection_ack"}'
            # Longer than for the first message, and for a request.
            with pytest.raises(TimeoutError):
                talk.recv(timeout=1)


@pytest.fixture
def _many_files() -> Iterator[None]:
    """Both ends of each connection are this process's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_files")
@pytest.mark.parametrize(
    "sources", [[LOOPBACK], ["127.0.0.2", "127.0.0.3", "127.0.0.4"]], ids=["one", "three"]
)
def test_idle_connections_keep_nobody_out(
    dashboard: Dashboard, configuration: Configuration, sources: list[str]
) -> None:
    with serving(dashboard.app, configuration) as port, ExitStack() as idle:
        address = f"http://{LOOPBACK}:{port}/login"
        for number in range(600):
            client = idle.enter_context(calling(port, sources[number % len(sources)]))
            client.sendall(HEAD)
        for _ in range(5):
            began = time.monotonic()
            assert httpx2.get(address, timeout=PATIENCE).status_code == 200
            assert time.monotonic() - began < 5


@pytest.mark.long
def test_busy_connections_of_one_address_keep_no_other_out(configuration: Configuration) -> None:
    limits = ConnectionLimits(connections=6, per_network=3)

    def busy(source: str) -> socket.socket:
        client = stack.enter_context(calling(port, source))
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.settimeout(0.3)
        return client

    def is_refused(client: socket.socket) -> bool:
        try:
            return client.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    with serving(waiting, configuration, limits) as port, ExitStack() as stack:
        assert [is_refused(busy("127.0.0.2")) for _ in range(4)] == [False, False, False, True]
        assert httpx2.get(f"http://{LOOPBACK}:{port}/").status_code == 204
    # Of a proxy everybody has the address.
    proxied = replace(configuration, trusted_proxies=("127.0.0.2",))
    with serving(waiting, proxied, limits) as port, ExitStack() as stack:
        assert [is_refused(busy("127.0.0.2")) for _ in range(7)] == [*[False] * 6, True]

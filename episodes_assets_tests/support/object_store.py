"""A real S3 server on loopback, and a proxy to it on which requests fail, are slow or are not let through."""

import http.client
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.fs as pafs
import pytest

BUCKET = "lake"
_MAIN = "from moto.server import main; main()"
_PATIENCE_SECONDS = 60
_NOT_FORWARDED = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True)
class ObjectStore:
    """A server with an empty bucket.

    Attributes:
        address: Its URL.
        process: Its process.
    """

    address: str
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


def serve_argv(host: str, port: int) -> list[str]:
    """The command line of a server."""
    return [sys.executable, "-P", "-c", _MAIN, "-H", host, "-p", str(port)]


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A server while the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        serve_argv("127.0.0.1", port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        while process.poll() is None:
            with suppress(urllib.error.URLError), urllib.request.urlopen(request, timeout=5):
                break
            assert time.monotonic() < deadline
        yield ObjectStore(address, process)
    finally:
        process.kill()
        process.wait()


def connect(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let this process and those that it starts use a server."""
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "EPISODES_ALLOWED_HOSTS": f"s3://{BUCKET}, {address.removeprefix('http://')}",
    }.items():
        monkeypatch.setenv(name, value)


def put_object(url: str, content: bytes | None) -> None:
    """Put an object there behind the product's back, or remove it.

    Args:
        url: Its URL.
        content: What it is to hold; None to remove it.
    """
    filesystem, path = pafs.FileSystem.from_uri(url)
    if content is None:
        filesystem.delete_file(path)
        return
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


class FaultyProxy:
    """A proxy to a server; from some request on, a fault has all of them.

    Attributes:
        address: What to connect to.
        methods: Those of the requests since `clear` or `fail`, in order.
        before: Called with the method of each request, before it is forwarded.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.methods: list[str] = []
        self.before: Callable[[str], None] = lambda _: None
        self._after: int | None = None
        self._fault: Callable[[BaseHTTPRequestHandler, Callable[[], None]], None] = answer(500)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):  # the client has given up
                    super().handle_one_request()

            def _any(self) -> None:
                body = _read_body(self)
                proxy.before(self.command)
                if proxy._is_hit(self.command):
                    proxy._fault(self, lambda: _forward(self, store.port, body, is_told=False))
                else:
                    _forward(self, store.port, body, is_told=True)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any  # noqa: N815  the names are the server's

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def requests(self) -> int:
        """How many there were since `clear` or `fail`."""
        return len(self.methods)

    def fail(self, after: int, fault: Callable[[BaseHTTPRequestHandler, Callable[[], None]], None]) -> None:
        """Let so many more requests through, and a fault have those after them."""
        with self._lock:
            self.methods, self._after, self._fault = [], after, fault

    def clear(self) -> None:
        """Let all requests through."""
        with self._lock:
            self.methods, self._after = [], None

    def close(self) -> None:
        """Close it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _is_hit(self, method: str) -> bool:
        with self._lock:
            self.methods.append(method)
            return self._after is not None and len(self.methods) > self._after


def answer(
    status: int, *, is_done: bool = False
) -> Callable[[BaseHTTPRequestHandler, Callable[[], None]], None]:
    """A fault: each request is answered with a status, whether or not it was done before."""

    def refuse(handler: BaseHTTPRequestHandler, do: Callable[[], None]) -> None:
        if is_done:
            do()
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return refuse


def hang_up(handler: BaseHTTPRequestHandler, do: Callable[[], None]) -> None:
    """A fault: the connection ends without an answer."""
    handler.close_connection = True


def _read_body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    body = b""
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    while handler.rfile.readline().strip():  # trailers
        pass
    return body


def _forward(handler: BaseHTTPRequestHandler, port: int, body: bytes, *, is_told: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
    try:
        headers = {
            name: value
            for name, value in handler.headers.items()
            if name.lower() not in {"connection", "transfer-encoding", "content-length", "expect"}
        }
        connection.request(handler.command, handler.path, body, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if not is_told:
        return
    handler.send_response(response.status)
    for name, value in response.getheaders():
        if name.lower() not in _NOT_FORWARDED:
            handler.send_header(name, value)
    length = response.getheader("Content-Length") if handler.command == "HEAD" else None
    handler.send_header("Content-Length", length or str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)

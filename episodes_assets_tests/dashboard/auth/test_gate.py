"""The auth gate as a server speaks to it: bodies in parts, clients that go away, odd methods and scopes."""

import json
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import anyio
import pytest
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.auth import audit, csrf, gate, graphql
from episodes_assets.dashboard.configuration import read_configuration
from episodes_assets_tests.dashboard.served import HOST, THIS_USER, Dashboard, serving

MUTATION = json.dumps({"query": "mutation { reloadWorkspace { __typename } }"}).encode()
QUERY = json.dumps({"query": "{ version }"}).encode()
DO = "/do"


@dataclass
class Inner:
    """An application behind the auth gate that notes which messages reach it."""

    received: list[Message] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.methods.append(scope["method"])
        for _ in range(2):
            self.received.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


@dataclass
class Exchange:
    """One request as a server hands it over.

    Attributes:
        sent: What was answered.
        left: The messages that nobody asked for.
    """

    sent: list[Message]
    left: list[Message]

    @property
    def status(self) -> int | None:
        return next((each["status"] for each in self.sent if each["type"] == "http.response.start"), None)


def parts(*bodies: bytes, end: bool = True) -> list[Message]:
    """A body in parts; without an end, the client goes away before the last of it."""
    found: list[Message] = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    if end:
        found[-1]["more_body"] = False
    return [*found, {"type": "http.disconnect"}]


def exchange(
    dashboard: Dashboard,
    role: Role | None,
    method: str,
    path: str,
    messages: Sequence[Message],
    headers: Iterable[tuple[bytes, bytes]] = (),
    **more: object,
) -> Exchange:
    cookie = [(b"cookie", f"episodes_session={dashboard.session(role)}".encode())] if role else []
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", HOST.encode()), (b"sec-fetch-site", b"same-origin"), *cookie, *headers],
        "client": ("10.0.0.1", 1),  # a session from there is bound to nobody
        "server": ("127.0.0.1", 3000),
        **more,
    }
    done = Exchange([], list(messages))

    async def receive() -> Message:
        return done.left.pop(0)

    async def send(message: Message) -> None:
        done.sent.append(message)

    anyio.run(dashboard.app, scope, receive, send)
    return done


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def served(dashboard: Dashboard, inner: Inner) -> Dashboard:
    return dashboard.again(pages=(Route(DO, inner),))


def recorded(dashboard: Dashboard) -> int:
    ((count,),) = dashboard.system.query("dagster", "SELECT count(*) FROM dashboard.audit_log")
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("bodies", [[b""], [b"one"], [b"o", b"n", b"", b"e"]])
def test_a_body_is_read_once_and_handed_on_whole(
    served: Dashboard, inner: Inner, bodies: list[bytes]
) -> None:
    found = exchange(served, Role.OPERATOR, "POST", DO, parts(*bodies))
    assert found.status == 200
    # Then what the client does next, and never the body again.
    assert inner.received == [
        {"type": "http.request", "body": b"".join(bodies), "more_body": False},
        {"type": "http.disconnect"},
    ]
    assert found.left == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_changes_nothing_is_handed_on_unread(served: Dashboard, inner: Inner, method: str) -> None:
    before = recorded(served)
    messages = parts(b"o", b"ne")
    found = exchange(served, Role.OPERATOR, method, DO, messages)
    assert (found.status, recorded(served)) == (200, before)
    assert inner.received == messages[:2]


@pytest.mark.parametrize("path", [DO, "/graphql", "/login", "/logout"])
def test_a_client_that_goes_away_in_the_middle_has_asked_for_nothing(
    served: Dashboard, inner: Inner, path: str
) -> None:
    """What it sent is a whole mutation, but for the end of the body."""
    before = recorded(served)
    json_ = [(b"content-type", b"application/json")]
    for bodies in ([b""], [MUTATION], [MUTATION, b""]):
        found = exchange(served, Role.OPERATOR, "POST", path, parts(*bodies, end=False), json_)
        assert (found.sent, found.left) == ([], [])
    assert inner.methods == []
    assert recorded(served) == before


def test_a_mutation_in_parts_is_one(served: Dashboard) -> None:
    json_ = [(b"content-type", b"application/json")]
    each = [MUTATION[place : place + 1] for place in range(len(MUTATION))]
    assert exchange(served, Role.VIEWER, "POST", "/graphql", parts(*each), json_).status == 403
    # What is beside it in the parts cannot be told from it, and so is refused.
    assert exchange(served, Role.VIEWER, "POST", "/graphql", parts(QUERY, MUTATION), json_).status == 400
    assert exchange(served, Role.VIEWER, "POST", "/graphql", parts(MUTATION, QUERY), json_).status == 400
    assert exchange(served, Role.VIEWER, "POST", "/graphql", parts(QUERY), json_).status == 200


@pytest.mark.parametrize(
    "lengths", [[b"-1"], [b"+3"], [b"3, 3"], [b"0x3"], [b""], [b"3", b"99999999999"], [b"10000001"]]
)
def test_a_length_that_is_none_is_refused(served: Dashboard, inner: Inner, lengths: list[bytes]) -> None:
    headers = [(b"content-length", length) for length in lengths]
    assert exchange(served, Role.OPERATOR, "POST", DO, parts(b"one"), headers).status == 413
    assert inner.methods == []


def test_a_body_is_counted_whatever_its_header_says(served: Dashboard, inner: Inner) -> None:
    headers = [(b"content-length", b"3")]
    megabytes = [bytes(1_000_000)] * 10
    assert exchange(served, Role.OPERATOR, "POST", DO, parts(*megabytes, b"x"), headers).status == 413
    assert exchange(served, None, "POST", "/login", parts(bytes(20_001)), headers).status == 413
    assert inner.methods == []


@pytest.mark.parametrize("method", ["post", "Post", "get", "GeT", "QUERY", "TRACE", "CONNECT", ""])
def test_an_odd_method_is_a_change(served: Dashboard, inner: Inner, method: str) -> None:
    json_ = [(b"content-type", b"application/json")]
    for path in (DO, "/graphql", "/login", "/logout"):
        assert exchange(served, None, method, path, parts(MUTATION), json_).status == 401
        assert exchange(served, Role.VIEWER, method, path, parts(MUTATION), json_).status == 403
        foreign = [(b"sec-fetch-site", b"cross-site")]
        assert exchange(served, Role.OPERATOR, method, path, parts(MUTATION), foreign).status == 403
    assert inner.methods == []
    assert exchange(served, Role.OPERATOR, method, DO, parts(b"one")).status == 200
    _, detail, outcome = served.events("request")[-1]
    assert (detail["method"], detail["path"], outcome) == (method, DO, "200")


def test_a_query_page_asked_by_options_executes_nothing(served: Dashboard) -> None:
    query = b"query=mutation%7BreloadWorkspace%7B__typename%7D%7D"
    mutations = len(served.events("graphql mutation"))
    for method in ("OPTIONS", "PUT", "HEAD", "GET", "PATCH"):
        found = exchange(served, Role.OPERATOR, method, "/graphql", parts(b""), query_string=query)
        assert found.status == 405, method
    assert len(served.events("graphql mutation")) == mutations


def test_below_another_path_nothing_is_served(served: Dashboard, inner: Inner) -> None:
    """By a root path, routes would match what the auth gate did not see."""
    for root, path in (("/do", "/do"), ("/login", "/login/do"), ("/x", "/x/login")):
        for role in (None, *Role):
            found = exchange(served, role, "POST", path, parts(b""), root_path=root)
            assert found.status == 400
    assert inner.methods == []


def test_the_life_of_the_server_is_nobodys_request(dashboard: Dashboard) -> None:
    sent: list[str] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup" if not sent else "lifespan.shutdown"}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    anyio.run(dashboard.app, scope, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("kind", ["webtransport", "", "HTTP"])
def test_a_scope_of_another_kind_reaches_no_route(served: Dashboard, inner: Inner, kind: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        exchange(served, None, "POST", DO, parts(b""), type=kind)
    assert inner.methods == []


def test_requests_on_one_connection_are_each_looked_at(served: Dashboard, inner: Inner) -> None:
    """Sent at once; and one within the body of another is none."""
    tokens = {role: served.session(role, client=THIS_USER) for role in Role}

    def raw(method: str, path: str, role: Role | None, body: bytes = b"", *more: str) -> bytes:
        cookie = [f"Cookie: episodes_session={tokens[role]}"] if role else []
        lines = [
            f"{method} {path} HTTP/1.1", "Host: localhost", "Sec-Fetch-Site: same-origin", *cookie, *more,
            *([] if more else [f"Content-Length: {len(body)}"]), "", "",
        ]  # fmt: skip
        return "\r\n".join(lines).encode() + body

    within = raw("POST", DO, Role.OPERATOR)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(within), within)
    chunks, last = (
        "Transfer-Encoding: chunked",
        raw("POST", DO, None, b"", "Content-Length: 0", "Connection: close"),
    )
    pipelined = [
        raw("GET", "/login", None) + raw("POST", DO, None) + raw("POST", DO, Role.VIEWER) + last,
        raw("POST", DO, Role.VIEWER, within) + last,
        raw("GET", "/login", Role.OPERATOR, within) + last,
        raw("GET", "/login", Role.OPERATOR, chunked, chunks) + last,
        raw("POST", DO, Role.VIEWER, chunked, chunks, "Content-Length: 3") + last,
        raw("POST", DO, Role.VIEWER, chunked, "Transfer-Encoding: x", "Content-Length: 3") + last,
    ]
    configuration = read_configuration(served.system.settings, host="127.0.0.1", port=0)
    found = []
    with serving(served.app, configuration) as port:
        for sent in pipelined:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(sent)
                answers = b"".join(iter(lambda: client.recv(65_536), b""))
            lines = answers.replace(b"HTTP/1.1 ", b"\r\nHTTP/1.1 ").split(b"\r\n")
            found.append([int(line.split()[1]) for line in lines if line.startswith(b"HTTP/1.1 ")])
    assert inner.methods == []
    assert found == [[200, 401, 403, 401], [403, 401], [303, 401], [303, 401], [403, 401], [400]]


@pytest.mark.parametrize(
    ("module", "step", "path"),
    [
        (gate, "identify", DO), (gate, "identify", "/graphql"), (gate, "identify", "/login"),
        (csrf, "is_same_origin", DO), (gate, "read_body", DO), (gate, "read_body", "/login"),
        (graphql, "read_http", "/graphql"), (graphql, "read_calls", "/graphql"),
        (audit, "describe_whole", DO), (audit, "describe_request", DO), (audit, "describe_calls", "/graphql"),
        (audit, "describe_briefly", DO),
    ],
)  # fmt: skip
def test_nothing_passes_by_an_error_on_the_way(
    served: Dashboard, inner: Inner, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str, path: str
) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(module, step, fail)
    before = recorded(served)
    json_ = [(b"content-type", b"application/json")]
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        exchange(served, Role.OPERATOR, "POST", path, parts(MUTATION), json_)
    assert inner.methods == []
    assert recorded(served) == before

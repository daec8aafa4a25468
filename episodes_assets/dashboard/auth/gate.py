"""The auth gate: default deny before every route; no viewer changes anything.

A request is refused unless its route is declared public or its identity's role allows it, so a route that is
added later is closed until it is declared public. Where a decision needs the body, it is read whole, within
limits of size and time, and passed on unchanged. A request goes through a sequence of steps, each of which
adds what it has found out or returns a refusal; the application is called after the last step only. Who an
identity is, is read in `credentials`; what GraphQL asks for, in `graphql`.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import dagster as dg
from anyio import to_thread
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from episodes_assets.accounts.pool import AWAY
from episodes_assets.dashboard.auth import audit, csrf, graphql, graphql_socket, refusals
from episodes_assets.dashboard.auth.credentials import Credential, identify
from episodes_assets.dashboard.auth.refusals import Refusal, answer
from episodes_assets.dashboard.site import Site
from episodes_assets.defs.launches import launching_as

MOST_BYTES = 10_000_000
# A login form needs less, and anybody may send one.
MOST_BYTES_PUBLIC = 20_000
LONGEST_SECONDS = 60.0


class BodyTooLarge(ValueError):
    """The body is larger than a request may be."""


async def read_body(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    """The whole body of a request.

    Raises:
        BodyTooLarge: As soon as it is known to be larger than that.
        TimeoutError: If it does not arrive in time.
        ConnectionError: If the client is gone.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > most_bytes):
            raise BodyTooLarge
    parts = bytearray()
    with anyio.fail_after(LONGEST_SECONDS):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            parts += message.get("body", b"")
            if len(parts) > most_bytes:
                raise BodyTooLarge
            if not message.get("more_body", False):
                return bytes(parts)


def replaying(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """An ASGI `receive` that returns the body first, then whatever the original one does."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Routes:
    """Which routes have rules of their own.

    Attributes:
        anonymous: Answered without a login, and the same to everybody: who sends a request is not asked.
        public: Answered without a login as well, otherwise to who has one.
        for_all_roles: To which viewers may POST as well: logging out.
        graphql: Where GraphQL is sent, over HTTP and over WebSockets.
        polled: Requested by open pages by themselves, so a request to one does not count as use of a session.
    """

    anonymous: Sequence[BaseRoute]
    public: Sequence[BaseRoute]
    for_all_roles: Sequence[BaseRoute]
    graphql: Sequence[BaseRoute]
    polled: Sequence[BaseRoute]


@dataclass(frozen=True)
class _Request:
    """A request, and what the steps so far have found out about it.

    Attributes:
        scope: As the server gave it.
        receive: As the server gave it; a body that is read comes from it no more.
        send: As the server gave it.
        is_anonymous: Whether its route answers everybody alike.
        is_public: Whether its route is answered without a login.
        is_for_all_roles: Whether viewers may POST to its route.
        is_graphql: Whether GraphQL is sent to its route.
        is_use: Whether it counts as use of a session, so that the idle time begins again.
        credential: The identity that sent it; None if it is not authenticated.
        body: All of its body; None as long as that is not read.
        query: The GraphQL in it, if there is any.
        calls: What of that is executed and changes something, or checks run configuration.
        event: The id that its events in the audit log share; None if it has none.
    """

    scope: Scope
    receive: Receive
    send: Send
    is_anonymous: bool
    is_public: bool
    is_for_all_roles: bool
    is_graphql: bool
    is_use: bool
    credential: Credential | None = None
    body: bytes | None = None
    query: graphql.GraphQLRequest | None = None
    calls: Sequence[graphql.Call] = ()
    event: str | None = None

    @classmethod
    def arriving(cls, routes: Routes, scope: Scope, receive: Receive, send: Send) -> "_Request":
        """A new request, of which only the routes that it matches are known."""
        is_anonymous = _match(routes.anonymous, scope)
        return cls(
            scope,
            receive,
            send,
            is_anonymous=is_anonymous,
            is_public=is_anonymous or _match(routes.public, scope),
            is_for_all_roles=_match(routes.for_all_roles, scope),
            is_graphql=_match(routes.graphql, scope),
            is_use=not _match(routes.polled, scope),
        )

    @property
    def connection(self) -> HTTPConnection:
        return HTTPConnection(self.scope)

    @property
    def is_socket(self) -> bool:
        return bool(self.scope["type"] == "websocket")

    @property
    def is_safe(self) -> bool:
        """Whether its method is a safe one (RFC 9110); GraphQL by GET could change something all the same."""
        return not self.is_socket and self.scope["method"] in csrf.SAFE_METHODS

    @property
    def may_change(self) -> bool:
        return self.credential is not None and self.credential.identity.role.may_change

    @property
    def whole_body(self) -> bytes:
        """The body, which has been read."""
        if self.body is None:
            raise AssertionError("the body is not read")  # an unread body must not pass for an empty one
        return self.body

    @property
    def kind(self) -> str:
        """What the audit log calls it."""
        return "request" if self.query is None else "graphql mutation"

    def brief(self) -> dict[str, object]:
        """What identifies it in an event that does not have its arguments."""
        return {} if self.body is None else audit.describe_briefly(self.query, self.body)


# Returns the request with what the step has found out, or a refusal, or None if the client is gone.
_Step = Callable[[_Request], Awaitable["_Request | Refusal | None"]]


class AuthGate:
    """ASGI middleware; `scope["user"]` is an `Identity` for each request behind it, but for public routes."""

    def __init__(self, app: ASGIApp, *, site: Site, routes: Routes, instance: dg.DagsterInstance) -> None:
        self._app = app
        self._instance = instance
        self._site = site
        self._routes = routes
        self._sockets = graphql_socket.OpenSockets()
        # The application is called only for requests that pass all of them.
        self._steps: Sequence[_Step] = (
            self._identify,
            self._admit,
            self._read_body,
            self._read_graphql,
            self._admit_graphql,
            self._read_calls,
            self._record_begun,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
        request = _Request.arriving(self._routes, scope, receive, send)
        for step in self._steps:
            found = await step(request)
            if found is None:
                return
            if isinstance(found, Refusal):
                await self._refuse(found, request)
                return
            request = found
        await self._pass(request)

    async def _identify(self, request: _Request) -> _Request | Refusal:
        """Authenticate it, but where that is of no use: `/healthz` answers in time whatever is away."""
        if request.is_anonymous:
            return request
        try:
            credential = await identify(
                request.connection, self._site.accounts, self._site.configuration, is_use=request.is_use
            )
        except AWAY:
            return request if request.is_public else refusals.AWAY
        if credential is not None:
            identity = credential.identity
            request.scope["user"] = identity
            request.scope["auth"] = AuthCredentials(["authenticated", identity.role.value])
        return replace(request, credential=credential)

    async def _admit(self, request: _Request) -> _Request | Refusal:
        """Decide what can be decided before the body is read."""
        scope, credential = request.scope, request.credential
        # The patterns of Starlette's routes end in `$`, which also matches before a line end.
        if not scope["path"].isprintable() or scope.get("root_path"):
            return refusals.ODD_PATH
        if credential is None and not request.is_public:
            return refusals.NOT_SIGNED_IN
        if request.is_socket and not request.is_graphql:
            return refusals.NO_SOCKET
        is_forgeable = credential is None or credential.is_cookie
        if (
            not request.is_safe
            and is_forgeable
            and not csrf.is_same_origin(
                request.connection.headers, is_secure=self._site.configuration.is_secure
            )
        ):
            return refusals.CROSS_SITE
        if request.is_socket or request.is_public or request.may_change or _viewer_may(request):
            return request
        return refusals.VIEWER

    async def _read_body(self, request: _Request) -> _Request | Refusal | None:
        """Read its body, where a later step needs it."""
        if request.is_socket or (request.is_safe and not request.is_graphql):
            return request
        most = MOST_BYTES_PUBLIC if request.is_public else MOST_BYTES
        try:
            body = await read_body(request.scope, request.receive, most)
        except BodyTooLarge:
            return refusals.TOO_LARGE
        except TimeoutError:
            return refusals.TOO_SLOW
        except ConnectionError:
            return None
        return replace(request, body=body)

    async def _read_graphql(self, request: _Request) -> _Request | Refusal:
        """Read the GraphQL in it; that of a WebSocket is in its messages, which `guard_socket` checks."""
        if request.is_socket or not request.is_graphql:
            return request
        http, body = Request(request.scope), request.whole_body
        try:
            query = await _call(body, graphql.read_http, http.method, http.headers, http.query_params, body)
        except graphql.Unreadable as problem:
            return refusals.unreadable(str(problem))
        return replace(request, query=query)

    async def _admit_graphql(self, request: _Request) -> _Request | Refusal:
        """Decide about its GraphQL; a mutation counts even where another operation is picked."""
        if request.query is None or not request.query.has_mutation:
            return request
        if not request.may_change:
            return refusals.VIEWER
        return request if request.scope["method"] == "POST" else refusals.NOT_BY_POST

    async def _read_calls(self, request: _Request) -> _Request | Refusal:
        """Read what its GraphQL calls; run configuration may not name an environment variable."""
        query, credential = request.query, request.credential
        if query is None:
            return request
        try:
            calls, has_environment = await _call(request.whole_body, _calls_of, query)
        except graphql.Unreadable as problem:
            return refusals.unreadable(str(problem))
        if has_environment:
            return refusals.ENVIRONMENT
        if credential is not None:
            kind = query.picked.kind.value if query.picked else "none"
            self._site.metrics.operations.labels(credential.identity.role.value, kind).inc()
        return replace(request, calls=calls)

    async def _record_begun(self, request: _Request) -> _Request | Refusal:
        """Record a change in the audit log before it happens."""
        if request.credential is None or not _is_recorded(request):
            return request
        # Connects the two events of a request, between which others may be recorded.
        event = secrets.token_hex(4)
        detail = await audit.describe_whole(
            request.connection, request.query, request.calls, request.whole_body, self._instance, event
        )
        if isinstance(detail, Refusal):
            return detail
        try:
            await self._site.record_or_fail(
                request.connection,
                request.kind,
                "begun",
                who=request.credential.identity,
                detail=detail,
            )
        except AWAY:
            return refusals.AWAY
        return replace(request, event=event)

    async def _pass(self, request: _Request) -> None:
        """Call the application with a request that has passed all steps."""
        scope, receive, send, credential = request.scope, request.receive, request.send, request.credential
        if request.is_socket:
            await self._serve_socket(request)
            return
        if request.body is not None:
            receive = replaying(request.body, receive)
        if credential is None or request.event is None:
            await self._app(scope, receive, send)
            return
        status = 0
        answered = bytearray()

        async def noting_answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif request.query is not None and len(answered) <= audit.LONGEST_ANSWER:
                answered.extend(message.get("body", b""))
            await send(message)

        with launching_as(credential.identity.recorded_name) as launches:
            try:
                await self._app(scope, receive, noting_answer)
            finally:
                detail: dict[str, object] = {"request": request.event}
                if request.query is None:
                    detail |= audit.describe_address(request.connection)
                detail |= request.brief()
                if launches.ids:
                    detail["launched"] = launches.ids
                if 0 < len(answered) <= audit.LONGEST_ANSWER:
                    detail |= audit.describe_answer(bytes(answered))
                await self._site.record(
                    request.connection,
                    request.kind,
                    str(status) if status else "no answer",
                    who=credential.identity,
                    detail=detail,
                )

    async def _serve_socket(self, request: _Request) -> None:
        assert request.credential is not None  # noqa: S101  no WebSocket is public
        identity = request.credential.identity
        with self._sockets.admit(identity) as is_admitted:
            if not is_admitted:
                await self._refuse(refusals.TOO_MANY_SOCKETS, request)
                return
            await graphql_socket.guard_socket(
                self._app, self._site, identity, request.scope, request.receive, request.send
            )

    async def _refuse(self, refused: Refusal, request: _Request) -> None:
        self._site.metrics.refused.labels(refused.reason).inc()
        # Unauthenticated requests are only counted: they could fill the log, from which nothing is deleted.
        if refused is not refusals.AWAY and request.credential is not None:
            await self._site.record(
                request.connection,
                "request refused",
                refused.reason,
                who=request.credential.identity,
                detail=audit.describe_refused(request.connection, request.query, request.body),
                is_refusal=True,
            )
        if request.is_socket:
            await request.send(
                {"type": "websocket.close", "code": graphql_socket.POLICY_VIOLATION, "reason": refused.reason}
            )
            return
        await answer(refused, request.connection)(request.scope, request.receive, request.send)


def _match(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    """Whether one of these routes matches a request's path and method."""
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


def _viewer_may(request: _Request) -> bool:
    """Whether a viewer may send a request of this method to this route; its GraphQL is checked later."""
    method = request.scope["method"]
    may_post = request.is_for_all_roles or request.is_graphql
    return method in ("GET", "HEAD") or (method == "POST" and may_post)


def _is_recorded(request: _Request) -> bool:
    """Whether the gate records a request: it may change something, and its handler does not record it."""
    if request.query is not None:
        return request.query.has_mutation
    return not (request.is_socket or request.is_safe or request.is_public or request.is_for_all_roles)


def _calls_of(query: graphql.GraphQLRequest) -> tuple[list[graphql.Call], bool]:
    calls = graphql.read_calls(query)
    return calls, graphql.takes_environment(calls)


async def _call(body: bytes, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function whose time grows with the body: in a thread if that is large, so as not to block."""
    if len(body) > graphql.LARGE_BYTES:
        return await to_thread.run_sync(partial(function, *args, **kwargs))
    return function(*args, **kwargs)

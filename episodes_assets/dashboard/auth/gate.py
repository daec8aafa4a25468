"""The auth gate: default deny before every route; no viewer changes anything.

A request is refused unless its route is declared public or its identity's role allows it, so a route that is
added later is closed until it is declared public. Where a decision needs the body, it is read whole, within
limits of size and time, and passed on unchanged. Who an identity is, is read in `credentials`; what GraphQL
asks for, in `graphql`.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import dagster as dg
from anyio import to_thread
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import DBAPIError
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from episodes_assets.accounts import audit
from episodes_assets.accounts.pool import AWAY
from episodes_assets.dashboard.auth import refusals
from episodes_assets.dashboard.auth.audit import (
    LONGEST_ANSWER,
    KnownRuns,
    describe_address,
    describe_answer,
    describe_body,
    describe_calls,
    describe_operation,
    describe_request,
)
from episodes_assets.dashboard.auth.credentials import Credential, identify
from episodes_assets.dashboard.auth.csrf import SAFE_METHODS, is_same_origin
from episodes_assets.dashboard.auth.graphql import (
    LARGE_BYTES,
    Call,
    GraphQLRequest,
    Unreadable,
    named_runs,
    parent_runs,
    read_calls,
    read_http,
    takes_environment,
)
from episodes_assets.dashboard.auth.graphql_socket import guard_socket
from episodes_assets.dashboard.auth.refusals import Refusal, answer
from episodes_assets.dashboard.site import Site
from episodes_assets.defs.storage import launching_as

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
    """A `receive` that gives the body once more, then goes on with the real one."""
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
    """Which routes are treated apart.

    Attributes:
        public: Answered without a login.
        to_all: Where also viewers may POST: logging out.
        graphql: Where GraphQL is sent, over HTTP and over WebSockets.
        unattended: What open pages ask by themselves; it keeps no session from timing out.
    """

    public: Sequence[BaseRoute]
    to_all: Sequence[BaseRoute]
    graphql: Sequence[BaseRoute]
    unattended: Sequence[BaseRoute]


class AuthGate:
    """ASGI middleware; `scope["user"]` is an `Identity` for each request behind it, but for public routes."""

    def __init__(self, app: ASGIApp, *, site: Site, routes: Routes, instance: dg.DagsterInstance) -> None:
        self._app = app
        self._instance = instance
        self._site = site
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
        is_public = _leads_to(self._routes.public, scope)
        try:
            credential = await identify(
                connection,
                self._site.accounts,
                self._site.configuration,
                is_use=not _leads_to(self._routes.unattended, scope),
            )
        except AWAY:
            if not is_public:
                await self._refuse(refusals.AWAY, connection, None, receive, send)
                return
            credential = None
        if credential is not None:
            scope["user"] = credential.identity
            scope["auth"] = AuthCredentials(["authenticated", credential.identity.role.value])
        refused = self._refusal_before_body(scope, connection, credential, is_public=is_public)
        if refused is not None:
            await self._refuse(refused, connection, credential, receive, send)
        elif scope["type"] == "websocket":
            assert credential is not None  # noqa: S101  no WebSocket is public
            await guard_socket(self._app, self._site, credential.identity, scope, receive, send)
        elif scope["method"] in SAFE_METHODS and not _leads_to(self._routes.graphql, scope):
            await self._app(scope, receive, send)
        else:
            await self._with_body(connection, credential, receive, send, is_public=is_public)

    def _refusal_before_body(
        self, scope: Scope, connection: HTTPConnection, credential: Credential | None, *, is_public: bool
    ) -> Refusal | None:
        """What can be said of a request before its body is read."""
        # Starlette's routes end in `$`, which a line end may follow.
        if not scope["path"].isprintable() or scope.get("root_path"):
            return refusals.ODD_PATH
        is_socket = scope["type"] == "websocket"
        if credential is None and not is_public:
            return refusals.NOT_SIGNED_IN
        if is_socket and not _leads_to(self._routes.graphql, scope):
            return refusals.NO_SOCKET
        changes = is_socket or scope["method"] not in SAFE_METHODS
        is_sent_unasked = credential is None or credential.is_cookie
        if (
            changes
            and is_sent_unasked
            and not is_same_origin(connection.headers, is_secure=self._site.configuration.is_secure)
        ):
            return refusals.CROSS_SITE
        if is_socket or is_public or credential is None or credential.identity.role.may_change:
            return None
        return None if self._viewer_may(scope) else refusals.VIEWER

    def _viewer_may(self, scope: Scope) -> bool:
        """Whether a viewer may send this at all; what GraphQL asks for is looked at later."""
        if scope["method"] in ("GET", "HEAD"):
            return True
        return scope["method"] == "POST" and _leads_to([*self._routes.to_all, *self._routes.graphql], scope)

    async def _with_body(
        self,
        connection: HTTPConnection,
        credential: Credential | None,
        receive: Receive,
        send: Send,
        *,
        is_public: bool,
    ) -> None:
        """Go on with a request that has a body, or asks for GraphQL."""
        scope = connection.scope
        try:
            body = await read_body(scope, receive, MOST_BYTES_PUBLIC if is_public else MOST_BYTES)
        except BodyTooLarge:
            await self._refuse(refusals.TOO_LARGE, connection, credential, receive, send)
            return
        except TimeoutError:
            await self._refuse(refusals.TOO_SLOW, connection, credential, receive, send)
            return
        except ConnectionError:
            return
        query, calls, refused = None, list[Call](), None
        if _leads_to(self._routes.graphql, scope):
            try:
                query = await _read(Request(scope), body)
                refused = _refusal_of_graphql(scope["method"], credential, query)
                if query is not None and refused is None:
                    calls, refused = await _beside(body, _read_calls_or_refuse, query)
            except Unreadable as problem:
                refused = refusals.unreadable(str(problem))
            if refused is not None:
                await self._refuse(refused, connection, credential, receive, send, _brief(query, body))
                return
        await self._pass(connection, credential, query, calls, body, receive, send)

    async def _pass(
        self,
        connection: HTTPConnection,
        credential: Credential | None,
        query: GraphQLRequest | None,
        calls: Sequence[Call],
        body: bytes,
        receive: Receive,
        send: Send,
    ) -> None:
        """Let a request through; what changes something is on record before it happens."""
        if query is not None and credential is not None:
            kind = query.picked.kind.value if query.picked else "none"
            self._site.metrics.operations.labels(credential.identity.role.value, kind).inc()
        again = replaying(body, receive)
        if credential is None or not self._changes(connection.scope, query):
            await self._app(connection.scope, again, send)
            return
        what = "request" if query is None else "graphql mutation"
        detail = await self._describe(connection, query, calls, body)
        if isinstance(detail, Refusal):
            await self._refuse(detail, connection, credential, receive, send, _brief(query, body))
            return
        # The two events of a request, which others may come between.
        request = {"request": secrets.token_hex(4)}
        detail = {**detail, **request}
        try:
            await self._site.record_or_fail(connection, what, "begun", who=credential.identity, detail=detail)
        except AWAY:
            await self._refuse(refusals.AWAY, connection, credential, receive, send)
            return
        status = 0
        answered = bytearray()

        async def noting_answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif query is not None and len(answered) <= LONGEST_ANSWER:
                answered.extend(message.get("body", b""))
            await send(message)

        with launching_as(credential.identity.recorded_name) as launches:
            try:
                await self._app(connection.scope, again, noting_answer)
            finally:
                outcome = str(status) if status else "no answer"
                what_came: dict[str, object] = {"launched": launches.ids} if launches.ids else {}
                if 0 < len(answered) <= LONGEST_ANSWER:
                    what_came |= describe_answer(bytes(answered))
                where = describe_address(connection) if query is None else {}
                detail = {**request, **where, **_brief(query, body), **what_came}
                await self._site.record(connection, what, outcome, who=credential.identity, detail=detail)

    async def _describe(
        self, connection: HTTPConnection, query: GraphQLRequest | None, calls: Sequence[Call], body: bytes
    ) -> dict[str, object] | Refusal:
        """All that a request asks for, or why it cannot be on record, and so is not done."""
        if query is None:
            detail = {**describe_request(connection, body), **describe_body(body)}
        else:
            detail = {**describe_calls(calls), **_brief(query, body)}
        if not audit.fits(detail):
            return refusals.TOO_MUCH
        if ids := named_runs(calls):
            try:
                known = await to_thread.run_sync(KnownRuns, self._instance, ids)
            except (DBAPIError, DagsterPostgresException):
                return refusals.AWAY
            if known.name_environment(parent_runs(calls)):
                return refusals.ENVIRONMENT
            detail |= known.describe()
        return detail if audit.fits(detail) else refusals.TOO_MUCH

    def _changes(self, scope: Scope, query: GraphQLRequest | None) -> bool:
        """Whether a request is to be on record here: it may change something, and does not record itself."""
        if query is not None:
            return query.has_mutation
        return scope["method"] not in SAFE_METHODS and not _leads_to(
            [*self._routes.public, *self._routes.to_all], scope
        )

    async def _refuse(
        self,
        refused: Refusal,
        connection: HTTPConnection,
        credential: Credential | None,
        receive: Receive,
        send: Send,
        detail: dict[str, object] | None = None,
    ) -> None:
        self._site.metrics.refused.labels(refused.reason).inc()
        # Whoever has not proven a name is only counted: they would fill the log, which nobody can shorten.
        if refused is not refusals.AWAY and credential is not None:
            await self._site.record(
                connection,
                "request refused",
                refused.reason,
                who=credential.identity,
                detail={**describe_address(connection), **(detail or {})},
            )
        if connection.scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refused.reason})
            return
        await answer(refused, connection)(connection.scope, receive, send)


def _leads_to(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    """Whether one of these routes takes a request: its path and its method."""
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


async def _read(request: Request, body: bytes) -> GraphQLRequest | None:
    return await _beside(body, read_http, request.method, request.headers, request.query_params, body)


async def _beside(body: bytes, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function whose work grows with the body; for a large one beside the event loop."""
    if len(body) > LARGE_BYTES:
        return await to_thread.run_sync(partial(function, *args, **kwargs))
    return function(*args, **kwargs)


def _read_calls_or_refuse(query: GraphQLRequest) -> tuple[list[Call], Refusal | None]:
    calls = read_calls(query)
    return calls, refusals.ENVIRONMENT if takes_environment(calls) else None


def _brief(query: GraphQLRequest | None, body: bytes) -> dict[str, object]:
    """What tells a request from others, where its arguments are elsewhere or are not kept."""
    return {**describe_operation(query), **describe_body(body)}


def _refusal_of_graphql(
    method: str, credential: Credential | None, query: GraphQLRequest | None
) -> Refusal | None:
    """Whether GraphQL may be executed; a mutation counts even where another operation is picked."""
    if query is None or not query.has_mutation:
        return None
    if credential is None or not credential.identity.role.may_change:
        return refusals.VIEWER
    return None if method == "POST" else refusals.NOT_BY_POST

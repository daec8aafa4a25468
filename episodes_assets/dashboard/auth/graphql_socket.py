"""GraphQL over a WebSocket: each message is checked before Dagster gets it.

Only subscriptions are let through, as the UI sends nothing else here; mutations are refused for every role.
The login is checked again at each operation and every 30 seconds. Dagster has a thread for most
subscriptions, so how many a socket has at once is limited, and so is how many sockets an identity has. What a
message asks for is read in `graphql`.
"""

import json
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import anyio
from anyio import to_thread
from graphql import OperationType
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from episodes_assets.accounts import audit, pool
from episodes_assets.accounts.identity import Identity
from episodes_assets.dashboard.auth import credentials, graphql
from episodes_assets.dashboard.site import Site

_LOG = logging.getLogger(__name__)

RECHECK_SECONDS = 30.0
# The UI sends the first message at once.
FIRST_MESSAGE_SECONDS = 20.0
# Of the UI the longest message has 8 kB, and the longest document in it 7,400 characters.
LONGEST_MESSAGE = 16_000
LONGEST_DOCUMENT = 10_000
# A page of the UI has one or two, and one for each run in progress that makes what it shows.
MOST_SUBSCRIPTIONS = 20
# A browser has one for each tab.
MOST_SOCKETS = 30
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
_LONGEST = 500
# Bytes of UTF-8 that a close frame has room for beside its code (RFC 6455, section 5.5).
_LONGEST_REASON = 123
_END: Message = {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
_KNOWN = frozenset({"connection_init", "connection_terminate", "start", "stop"})
# How Dagster's messages begin after which it sends no more of an operation.
_ENDS = ('{"type":"complete",', '{"type":"error",')


class OpenSockets:
    """How many WebSockets each identity has open in this process."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def admit(self, identity: Identity) -> Iterator[bool]:
        """Count one for as long as the block lasts; whether there may be one more."""
        name = identity.recorded_name
        if self._open[name] >= MOST_SOCKETS:
            yield False
            return
        self._open[name] += 1
        try:
            yield True
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]


async def guard_socket(
    app: ASGIApp, site: Site, identity: Identity, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve a WebSocket until its login is over or it sends a message that is not allowed.

    A message that is not of the protocol, is too long, or asks for anything but a subscription, closes it; so
    does, within half a minute, a logout, a time-out, a changed role, or a user who is disabled. Operators may
    send no mutation here either, as Dagster executes one if the document has a subscription as well.
    """
    guard = _Guard(site, identity, HTTPConnection(scope), receive, send)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(guard.watch, tasks.cancel_scope)
        try:
            await app(scope, guard.receive, guard.send)
        except Exception as error:  # noqa: BLE001  whatever Dagster raises for an odd message
            _LOG.error(
                "%s's socket: %s: %s",
                identity.name,
                type(error).__name__,
                audit.shortened(str(error), _LONGEST),
            )
            await guard.fail()
        tasks.cancel_scope.cancel()


class _Guard:
    def __init__(
        self, site: Site, identity: Identity, connection: HTTPConnection, receive: Receive, send: Send
    ) -> None:
        self._site = site
        self._identity = identity
        self._connection = connection
        self._receive = receive
        self._send = send
        self._is_closed = False
        self._has_spoken = False
        # By their ids: those that were started and go on; those that have ended and Dagster still knows.
        self._started: set[str] = set()
        self._ended: deque[str] = deque()
        self._next: Message | None = None

    async def receive(self) -> Message:
        """The next message that may be passed on; else a disconnect.

        Dagster forgets an operation when it is stopped, and the UI stops none that has ended by itself.
        """
        if self._next is None:
            self._next = await self._allowed()
        if self._ended:
            stop = json.dumps({"type": "stop", "id": self._ended.popleft()})
            return {"type": "websocket.receive", "text": stop}
        message, self._next = self._next, None
        return message

    async def _allowed(self) -> Message:
        with anyio.move_on_after(None if self._has_spoken else FIRST_MESSAGE_SECONDS):
            message = await self._receive()
            self._has_spoken = message["type"] != "websocket.connect"
            return await self._passed_on(message)
        await self._close("no message")
        return _END

    async def _passed_on(self, message: Message) -> Message:
        if message["type"] != "websocket.receive" or self._is_closed:
            return message
        problem = await self._problem(message)
        if problem is None:
            return message
        await self._close(problem)
        return _END

    async def _problem(self, message: Message) -> str | None:
        """Why a message is not passed on, if it is not."""
        try:
            said = await _read(message, self._site, self._identity)
        except graphql.Unreadable as problem:
            return str(problem)
        if said.kind == "stop":
            self._started.discard(said.operation)
        if said.kind != "start":
            return None
        if len(self._started | {said.operation}) > MOST_SUBSCRIPTIONS:
            return f"more than {MOST_SUBSCRIPTIONS} subscriptions at once"
        if not await self._is_logged_in(is_use=True):
            return "signed out"
        self._started.add(said.operation)
        return None

    async def send(self, message: Message) -> None:
        """Send a message of Dagster's to the client, unless the socket is closed."""
        if self._is_closed:
            return
        self._is_closed = message["type"] == "websocket.close"
        if (message.get("text") or "").startswith(_ENDS):
            ended = json.loads(message["text"])["id"]
            self._started.discard(ended)
            self._ended.append(ended)
        await self._send(message)

    async def fail(self) -> None:
        """Close the socket after an error in Dagster."""
        await self.send({"type": "websocket.close", "code": INTERNAL_ERROR})

    async def watch(self, scope: anyio.CancelScope) -> None:
        """Close the socket when its login has ended."""
        while True:
            await anyio.sleep(RECHECK_SECONDS)
            if not await self._is_logged_in(is_use=False):
                await self._close("signed out")
                scope.cancel()
                return

    async def _is_logged_in(self, *, is_use: bool) -> bool:
        try:
            credential = await credentials.identify(
                self._connection, self._site.accounts, self._site.configuration, is_use=is_use
            )
        except pool.AWAY:
            return False  # the browser opens the socket again
        return credential is not None and credential.identity == self._identity

    async def _close(self, problem: str) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        reason = problem.encode("utf-8", "replace")[:_LONGEST_REASON].decode("utf-8", "ignore")
        await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
        self._site.metrics.refused.labels("socket").inc()
        await self._site.record(
            self._connection,
            "socket closed",
            problem,
            who=self._identity,
            detail={"path": self._connection.url.path},
            is_refusal=True,
        )


class _Readable(NamedTuple):
    """A message that may be passed on.

    Attributes:
        kind: Its type.
        operation: The id of the operation that it is about; empty if it is about none.
    """

    kind: str
    operation: str


async def _read(message: Mapping[str, Any], site: Site, identity: Identity) -> _Readable:
    if len(message.get("text") or "") > graphql.LARGE_BYTES:
        return await to_thread.run_sync(_said, message, site, identity)
    return _said(message, site, identity)


def _said(message: Mapping[str, Any], site: Site, identity: Identity) -> _Readable:
    """What a message says that may be passed on.

    Raises:
        Unreadable: If it may not.
    """
    text = message.get("text")
    if not isinstance(text, str):
        raise graphql.Unreadable("a message that is not text")
    content = graphql.json_object(text)
    kind = content.get("type")
    if not isinstance(kind, str) or kind not in _KNOWN:
        raise graphql.Unreadable("a message of no known type")
    # The key by which Dagster stores subscriptions.
    operation = content.get("id", "" if kind.startswith("connection") else None)
    if not isinstance(operation, str):
        raise graphql.Unreadable("an id that is not text")
    if kind == "start":
        query = graphql.read_socket_payload(content.get("payload"), LONGEST_DOCUMENT)
        if query.has_mutation:
            raise graphql.Unreadable("a mutation over a WebSocket")
        if query.picked is None or query.picked.kind is not OperationType.SUBSCRIPTION:
            raise graphql.Unreadable("no subscription; send it by POST")
        site.metrics.operations.labels(identity.role.value, query.picked.kind.value).inc()
    return _Readable(kind, operation)

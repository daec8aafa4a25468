"""GraphQL over a WebSocket: each message is checked before Dagster gets it.

Mutations are refused for every role, and so is run configuration that names an environment variable. The
login is checked again at each operation and every 30 seconds. What a message asks for is read in `graphql`.
"""

import logging
from collections.abc import Mapping
from typing import Any

import anyio
from anyio import to_thread
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
# The largest of the UI is some kB.
LONGEST_MESSAGE = 256_000
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
_LONGEST = 500
# Bytes of UTF-8 that a close frame has room for beside its code (RFC 6455, section 5.5).
_LONGEST_REASON = 123
_END: Message = {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
_KNOWN = frozenset({"connection_init", "connection_terminate", "start", "stop"})


async def guard_socket(
    app: ASGIApp, site: Site, identity: Identity, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve a WebSocket until its login is over or it sends a message that is not allowed.

    A message that is not of the protocol, or asks for a mutation, closes it; so does, within half a
    minute, a logout, a time-out, a changed role, or a user who is disabled. Operators may send no mutation
    here either, as Dagster executes one if the document has a subscription as well.
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

    async def receive(self) -> Message:
        """The next message that may be passed on; else a disconnect."""
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
            kind = await _read(message, self._site, self._identity)
        except graphql.Unreadable as problem:
            return str(problem)
        if kind == "start" and not await self._is_logged_in(is_use=True):
            return "signed out"
        return None

    async def send(self, message: Message) -> None:
        """Send a message of Dagster's to the client, unless the socket is closed."""
        if self._is_closed:
            return
        self._is_closed = message["type"] == "websocket.close"
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
        await self._site.record_refusal(
            self._connection,
            "socket closed",
            problem,
            who=self._identity,
            detail={"path": self._connection.url.path},
        )


async def _read(message: Mapping[str, Any], site: Site, identity: Identity) -> str:
    if len(message.get("text") or "") > graphql.LARGE_BYTES:
        return await to_thread.run_sync(_kind, message, site, identity)
    return _kind(message, site, identity)


def _kind(message: Mapping[str, Any], site: Site, identity: Identity) -> str:
    """The type of a message that may be passed on.

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
    if not isinstance(content.get("id", "" if kind.startswith("connection") else None), str):
        raise graphql.Unreadable("an id that is not text")
    if kind == "start":
        query = graphql.read_socket_payload(content.get("payload"))
        if query.has_mutation:
            raise graphql.Unreadable("a mutation over a WebSocket")
        if graphql.takes_environment(graphql.read_calls(query)):
            raise graphql.Unreadable("run configuration that names an environment variable")
        picked = query.picked.kind.value if query.picked else "none"
        site.metrics.operations.labels(identity.role.value, picked).inc()
    return kind

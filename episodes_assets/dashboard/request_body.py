"""A request's body, read whole within limits, and handed on as if it had not been."""

from collections.abc import Awaitable, Callable

import anyio
from starlette.types import Message, Receive, Scope

MOST_BYTES = 10_000_000
# A login form needs less, and anybody may send one.
MOST_BYTES_OPEN = 20_000
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

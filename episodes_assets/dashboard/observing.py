"""Counts and times every request, refused ones included."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from episodes_assets.accounts.identity import Identity
from episodes_assets.dashboard.metrics import Metrics


class Observing:
    """The outermost ASGI middleware; WebSockets, which last, are not timed."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500  # what is raised ends as

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            user = scope.get("user")
            role = user.role.value if isinstance(user, Identity) else "nobody"
            self._metrics.requests.labels(role, str(status)).inc()
            self._metrics.seconds.labels(role).observe(time.perf_counter() - began)

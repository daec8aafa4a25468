"""The headers that every response carries."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_FRAMES = "frame-ancestors 'none'"
STRICT_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; object-src 'none'; " + NO_FRAMES
_HSTS = "max-age=31536000"


class SecurityHeaders:
    """No response of the application is framed, sniffed, told to other sites or kept by a proxy.

    A response without a Content-Security-Policy gets our strict one; to any other, Dagster's own
    included, it is added that no site may frame it.

    Args:
        app: The application.
        is_secure: Whether browsers reach us over TLS: then they are told to insist on it.
    """

    def __init__(self, app: ASGIApp, *, is_secure: bool) -> None:
        self._app = app
        self._is_secure = is_secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                self._add(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, with_headers)

    def _add(self, headers: MutableHeaders) -> None:
        policy = headers.get("content-security-policy", STRICT_POLICY)
        if NO_FRAMES not in policy:
            policy = f"{policy.rstrip().rstrip(';')}; {NO_FRAMES}"
        headers["Content-Security-Policy"] = policy
        headers["X-Frame-Options"] = "DENY"
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "same-origin"
        if self._is_secure:
            headers["Strict-Transport-Security"] = _HSTS
        if "cache-control" not in headers:
            is_file = "etag" in headers and not headers.get("content-type", "").startswith("text/html")
            headers["Cache-Control"] = "private" if is_file else "no-store"


class PolicyOfDagster:
    """Leaves the Content-Security-Policy of Dagster's pages to Dagster; ours is too strict for them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Content-Security-Policy", NO_FRAMES)
            await send(message)

        await self._app(scope, receive, with_policy)

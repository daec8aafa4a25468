"""What is added around every request: metrics, security headers, the navigation strip on Dagster's pages.

Refused requests are counted as well. Refusing is `auth/gate.py`'s.
"""

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from episodes_assets.accounts.identity import Identity
from episodes_assets.dashboard.pages import TEMPLATES
from episodes_assets.dashboard.site import Metrics

_END = b"</body>"


class NavigationStrip:
    """ASGI middleware that adds the strip at the end of each HTML page on its way out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        body = bytearray()

        async def compose(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _is_page(message):
                held = message
            elif held is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    whole = _with_strip(bytes(body), scope)
                    MutableHeaders(scope=held)["Content-Length"] = str(len(whole))
                    await send(held)
                    await send({"type": "http.response.body", "body": whole})

        await self._app(scope, receive, compose)


def _is_page(start: Message) -> bool:
    headers = MutableHeaders(scope=start)
    return (
        start["status"] == 200
        and headers.get("content-type", "").startswith("text/html")
        and "content-encoding" not in headers
    )


def _with_strip(html: bytes, scope: Scope) -> bytes:
    before, end, after = html.rpartition(_END)
    if not end:
        return html
    strip = TEMPLATES.get_template("strip.html").render(user=scope["user"])
    return before + strip.encode() + end + after


class MetricsMiddleware:
    """The outermost ASGI middleware: counts and times HTTP requests, and leaves WebSockets out."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500  # of a request that raises an exception

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


NO_FRAMES = "frame-ancestors 'none'"
STRICT_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; object-src 'none'; " + NO_FRAMES
_HSTS = "max-age=31536000"


class SecurityHeaders:
    """Headers against framing (clickjacking), MIME sniffing, referrer leaks and caching by proxies.

    A response without a Content-Security-Policy gets our strict one; to any other, Dagster's own
    included, it is added that no site may frame it.

    Args:
        app: The application.
        is_secure: Whether browsers reach us over TLS: then HSTS is set.
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

"""A strip on every page of Dagster's UI: who is signed in, the way to the fleet, the way out."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from episodes_assets.dashboard.pages import TEMPLATES

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

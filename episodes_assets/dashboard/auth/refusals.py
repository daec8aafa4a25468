"""The reasons for which requests are refused, and the answers to them.

When a request is refused is decided in `gate`.
"""

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response

from episodes_assets.dashboard.auth.csrf import HOME, safe_next


@dataclass(frozen=True)
class Refusal:
    """Why a request is not let through.

    Attributes:
        status: Of the answer.
        reason: A short name of it, for counting.
        message: What its sender reads: what happened, and how to fix it.
    """

    status: int
    reason: str
    message: str


NOT_SIGNED_IN = Refusal(
    401, "not signed in", "Sign in at /login, or send a valid Authorization: Bearer token."
)
ODD_PATH = Refusal(400, "odd path", "The address has characters that no page here has.")
VIEWER = Refusal(403, "viewer", "You are signed in as a viewer, who changes nothing. Ask an operator.")
CROSS_SITE = Refusal(
    403,
    "cross-site",
    "This request does not come from a page of the dashboard. Open the dashboard and try there;"
    " a script sends an Authorization: Bearer token instead of a cookie.",
)
NO_SOCKET = Refusal(403, "no such socket", "There is no WebSocket here.")
TOO_MANY_SOCKETS = Refusal(429, "too many sockets", "You have too many WebSockets open. Close some pages.")
TOO_LARGE = Refusal(413, "too large", "The request is too large.")
TOO_SLOW = Refusal(408, "too slow", "The request did not arrive in time.")
NOT_BY_POST = Refusal(405, "mutation not by POST", "A mutation is sent by POST.")
ENVIRONMENT = Refusal(
    400,
    "environment variable",
    "The run configuration names an environment variable ({env: …}), which could publish a secret."
    " Write the value itself; a run whose record has one is launched anew by its job.",
)
TOO_MUCH = Refusal(
    413,
    "too much for the audit log",
    "This request holds more than the audit log keeps of one request, and what is not on record is not done."
    " Send it in parts: fewer runs or partitions at once, shorter tags and configuration.",
)
AWAY = Refusal(503, "database away", "A database is away; try again in a moment.")


def unreadable(problem: str) -> Refusal:
    """For GraphQL that is invalid, or could be read in two ways."""
    return Refusal(400, "unreadable GraphQL", f"This GraphQL request is refused: {problem}.")


def answer(refusal: Refusal, connection: HTTPConnection) -> Response:
    """The answer to a refused request: a redirect to the login where a person opened a page, else JSON.

    The JSON has the form of a GraphQL answer, so that Dagster's UI shows the message.
    """
    if refusal is NOT_SIGNED_IN and _opens_a_page(connection):
        query = connection.url.query
        wanted = safe_next(connection.url.path + (f"?{query}" if query else ""))
        where = "/login" if wanted == HOME else f"/login?next={quote(wanted, safe='/')}"
        return RedirectResponse(where, status_code=HTTPStatus.SEE_OTHER)
    headers = {}
    if refusal.status == NOT_SIGNED_IN.status:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal is NOT_BY_POST:
        headers["Allow"] = "POST"
    return JSONResponse({"errors": [{"message": refusal.message}]}, refusal.status, headers)


def _opens_a_page(connection: HTTPConnection) -> bool:
    """Whether a browser is to show the answer, as against a script that waits for data."""
    return (
        connection.scope["type"] == "http"
        and connection.scope["method"] in ("GET", "HEAD")
        and "text/html" in connection.headers.get("accept", "")
        and connection.headers.get("sec-fetch-mode", "navigate") == "navigate"
    )

"""From a proven identity to a session, and the end of it."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import Identity
from episodes_assets.dashboard.credentials import cookie_name, session_token
from episodes_assets.dashboard.next_page import safe_next
from episodes_assets.dashboard.session_client import session_client
from episodes_assets.dashboard.site import site_of

SEE_OTHER = 303


async def sign_in(request: Request, identity: Identity, next_page: str | None) -> Response:
    """Begin a session of somebody who has proven who they are, and send them on.

    The session is always a new one: a cookie that was there before is worth nothing afterwards.

    Args:
        request: The request that brought the proof.
        identity: Who they are.
        next_page: Where they wanted to go; only pages of ours count.

    Raises:
        psycopg.OperationalError: If the accounts' database is away.
    """
    site = site_of(request)
    configuration = site.configuration
    before = session_token(request, is_secure=configuration.is_secure)
    client = session_client(request, configuration)
    if before is not None:
        await site.accounts.run(sessions.end_session, before, client=client)
    token = await site.accounts.run(sessions.start_session, identity, configuration.lifetimes, client=client)
    await site.accounts.run(sessions.purge_sessions)
    site.metrics.logins.labels(identity.way.value, "accepted").inc()
    await site.record(request, "login", "accepted", who=identity)
    response = RedirectResponse(safe_next(next_page), status_code=SEE_OTHER)
    response.set_cookie(
        cookie_name(is_secure=configuration.is_secure),
        token,
        max_age=int(configuration.lifetimes.absolute.total_seconds()),
        path="/",
        secure=configuration.is_secure,
        httponly=True,
        samesite="lax",
    )
    return response


async def sign_out(request: Request) -> Response:
    """End the session of a request for ever, and show the login."""
    site = site_of(request)
    is_secure = site.configuration.is_secure
    token = session_token(request, is_secure=is_secure)
    if token is not None:
        client = session_client(request, site.configuration)
        await site.accounts.run(sessions.end_session, token, client=client)
    await site.record(request, "logout", "done", who=request.user)
    response = RedirectResponse("/login", status_code=SEE_OTHER)
    response.delete_cookie(
        cookie_name(is_secure=is_secure), path="/", secure=is_secure, httponly=True, samesite="lax"
    )
    return response

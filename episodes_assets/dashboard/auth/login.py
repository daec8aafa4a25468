"""The login page, and beginning and ending a session, by whichever method somebody has authenticated.

An attempt is counted before its password is compared (rate limit), few passwords are hashed at once, of those
that wait few come from one network, and each login begins a new session (session fixation).

It also says why a login through an OpenID Connect provider failed. The protocol itself is `oidc`, passwords
are checked by `accounts/users.py`, and where a login may lead is decided in `csrf` (open redirects).
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from anyio import CapacityLimiter
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from episodes_assets.accounts import sessions, throttle, users
from episodes_assets.accounts.identity import AuthMethod, Identity
from episodes_assets.dashboard.auth import credentials, csrf
from episodes_assets.dashboard.pages import page
from episodes_assets.dashboard.site import address_of, site_of
from episodes_assets.postgres.connect import Connection


class OidcRefusal(StrEnum):
    """Why a login through the provider failed; the value is the login page's query parameter `refused`."""

    CANCELLED = "cancelled"
    NO_ANSWER = "no-answer"
    NOT_BEGUN = "not-begun"
    UNPROVEN = "unproven"
    UNVERIFIED = "unverified"
    NOT_LET_IN = "not-let-in"


_SENTENCES = {
    OidcRefusal.CANCELLED: "The sign-in was cancelled at the provider.",
    OidcRefusal.NO_ANSWER: "The sign-in provider does not answer as it should; try again in a moment.",
    OidcRefusal.NOT_BEGUN: "This sign-in was not begun here, or too long ago; begin it again.",
    OidcRefusal.UNPROVEN: "What the sign-in provider answered proves nothing; begin again.",
    OidcRefusal.UNVERIFIED: "The sign-in provider has not verified that your e-mail address is yours.",
    OidcRefusal.NOT_LET_IN: "Your e-mail address is not let in here; ask whoever runs this dashboard.",
}


def sentence_of(refused: str | None) -> str | None:
    """The login page's sentence for its query parameter `refused`; None if that is none of these values."""
    if refused is None or refused not in list(OidcRefusal):
        return None
    return _SENTENCES[OidcRefusal(refused)]


async def sign_in(request: Request, identity: Identity, next_page: str | None) -> Response:
    """Begin a session of an authenticated identity, and redirect to the page that was wanted.

    The session is always a new one, and a session that the browser had is ended (session fixation).

    Args:
        request: The request that brought the credential.
        identity: Whose session it is.
        next_page: The page to show; one of another site is replaced by the home page.

    Raises:
        psycopg.OperationalError: If the accounts' database does not answer.
    """
    site = site_of(request)
    configuration = site.configuration
    before = credentials.session_token(request, is_secure=configuration.is_secure)
    client = credentials.session_client(request, configuration)
    if before is not None:
        await site.accounts.run(sessions.end_session, before, client=client)
    token = await site.accounts.run(sessions.start_session, identity, configuration.lifetimes, client=client)
    await site.accounts.run(sessions.purge_sessions)
    site.metrics.logins.labels(identity.method.value, "accepted").inc()
    await site.record(request, "login", "accepted", who=identity)
    response = RedirectResponse(csrf.safe_next(next_page), status_code=HTTPStatus.SEE_OTHER)
    response.set_cookie(
        credentials.cookie_name(is_secure=configuration.is_secure),
        token,
        max_age=int(configuration.lifetimes.absolute.total_seconds()),
        path="/",
        secure=configuration.is_secure,
        httponly=True,
        samesite="lax",
    )
    return response


async def sign_out(request: Request) -> Response:
    """End the session of a request, and show the login page."""
    site = site_of(request)
    is_secure = site.configuration.is_secure
    token = credentials.session_token(request, is_secure=is_secure)
    if token is not None:
        client = credentials.session_client(request, site.configuration)
        # A script with a service token may call it as often as it likes, and ends nothing.
        if await site.accounts.run(sessions.end_session, token, client=client):
            await site.record(request, "logout", "done", who=request.user)
    response = RedirectResponse("/login", status_code=HTTPStatus.SEE_OTHER)
    response.delete_cookie(
        credentials.cookie_name(is_secure=is_secure),
        path="/",
        secure=is_secure,
        httponly=True,
        samesite="lax",
    )
    return response


WRONG = "Name or password is wrong."
# In the audit log, in place of what was typed.
UNKNOWN = "an unknown name"
BUSY = "Too many people are signing in at this moment. Try again in a few seconds."
_LONGEST_NAME = 200
# Each hash takes a core and 64 MB for a moment: more at once would only be slower, or are an attack.
_HASHES_AT_ONCE = 2
# About as many as are served before a person gives up.
_MOST_WAITING = 50
# Attempts of one address, or of one /64 of IPv6, so that nobody takes the places of all others.
_MOST_OF_A_NETWORK = 5
_SAME_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class OidcLogin:
    """The login through an OpenID Connect provider.

    Attributes:
        label: The text on its button: the provider's name.
        path: The path of this site to which the button leads.
        routes: All its routes, which are public; the last step calls `sign_in`.
    """

    label: str
    path: str
    routes: Sequence[BaseRoute]


def login_routes(oidc: OidcLogin | None) -> list[BaseRoute]:
    """The routes of the login page, which are public."""
    return _Login(oidc).routes()


def logout_routes() -> list[BaseRoute]:
    """The route that logs out, for all roles."""
    return [Route("/logout", sign_out, methods=["POST"], name="logout")]


class _Login:
    def __init__(self, oidc: OidcLogin | None) -> None:
        self._oidc = oidc
        self._limiter = CapacityLimiter(_HASHES_AT_ONCE)
        self._recorded_waits = _RecordedWaits()
        self._under_way: Counter[str] = Counter()

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/login", self.show, methods=["GET"], name="login"),
            Route("/login", self.receive, methods=["POST"], name="login-sent"),
        ]

    async def show(self, request: Request) -> Response:
        """Show the form; redirect who is logged in already."""
        wanted = csrf.safe_next(request.query_params.get("next"))
        if isinstance(request.user, Identity):
            return RedirectResponse(wanted, status_code=HTTPStatus.SEE_OTHER)
        problem = sentence_of(request.query_params.get("refused"))
        return self._form(request, wanted, problem=problem or "")

    async def receive(self, request: Request) -> Response:
        """Check the name and the password of the form."""
        site = site_of(request)
        async with request.form(max_files=0, max_fields=10) as form:
            name, password, wanted = (_text(form.get(key)) for key in ("name", "password", "next"))
        wanted = csrf.safe_next(wanted)
        if not site.configuration.password_login:
            return self._form(request, wanted, status=403, problem="Passwords are not accepted here.")
        network = throttle.network_of(address_of(request))
        if (
            self._limiter.statistics().tasks_waiting >= _MOST_WAITING
            or self._under_way[network] >= _MOST_OF_A_NETWORK
        ):
            site.metrics.logins.labels(AuthMethod.PASSWORD.value, "busy").inc()
            return self._form(
                request, wanted, status=503, problem=BUSY, name=name, headers={"Retry-After": "5"}
            )
        with self._counted(network):
            async with self._limiter:
                found = await site.accounts.run(_try, name, password, address_of(request))
        if isinstance(found, Identity):
            return await sign_in(request, found, wanted)
        outcome = "too soon" if found else "refused"
        site.metrics.logins.labels(AuthMethod.PASSWORD.value, outcome).inc()
        if not found or self._recorded_waits.add(found):
            # The same statements whether the user exists or not (timing).
            known = await site.accounts.run(users.known_name, name)
            await site.record(request, "login", outcome, name=known or UNKNOWN)
        if not found:
            return self._form(request, wanted, status=401, problem=WRONG, name=name)
        seconds = math.ceil(found)
        problem = f"Too many attempts. Try again in {_in_words(seconds)}."
        return self._form(
            request, wanted, status=429, problem=problem, name=name, headers={"Retry-After": str(seconds)}
        )

    @contextmanager
    def _counted(self, network: str) -> Iterator[None]:
        self._under_way[network] += 1
        try:
            yield
        finally:
            self._under_way[network] -= 1
            if not self._under_way[network]:
                del self._under_way[network]

    def _form(
        self,
        request: Request,
        wanted: str,
        *,
        status: int = 200,
        problem: str = "",
        name: str = "",
        headers: dict[str, str] | None = None,
    ) -> Response:
        return page(
            request,
            "login.html",
            status=status,
            headers=headers,
            next_page=wanted,
            problem=problem,
            name=name[:_LONGEST_NAME],
            oidc=self._oidc,
            has_password=site_of(request).configuration.password_login,
        )


class _RecordedWaits:
    """The waits that are in the audit log, each once, so that repeated attempts do not fill it.

    A wait is identified by the moment it ends, whatever the name or address: so at most one event a second
    is recorded, however many names and addresses an attacker has.
    """

    def __init__(self) -> None:
        self._ends: list[float] = []

    def add(self, seconds: float) -> bool:
        """Add a wait of which so many seconds are left; False if it was there already."""
        now = time.monotonic()
        end = now + seconds
        self._ends = [each for each in self._ends if each > now]
        if any(abs(each - end) < _SAME_WAIT_SECONDS for each in self._ends):
            return False
        self._ends.append(end)
        return True


def _try(connection: Connection, name: str, password: str, address: str) -> Identity | float:
    """The identity that logs in; or the seconds to wait, 0 where name or password is wrong."""
    wait = throttle.begin_attempt(connection, name, address)
    if wait > 0:
        return wait
    identity = users.log_in(connection, name, password)
    if identity is None:
        throttle.record_failure(connection, name, address)
        return 0.0
    throttle.record_success(connection, name, address)
    return identity


def _text(value: UploadFile | str | None) -> str:
    return value if isinstance(value, str) else ""


def _in_words(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} second{'s' if seconds != 1 else ''}"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minute{'s' if minutes != 1 else ''}"

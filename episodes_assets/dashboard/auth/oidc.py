"""The OpenID Connect client: authorisation code with PKCE, state and nonce; its routes and its button.

Authlib speaks the protocol and verifies the ID token. Between leaving for the provider and coming back its
state lies in a signed cookie, for ten minutes; the session after that is one like any other. Who is let in
is decided in `dashboard/configuration.py`.
"""

import logging
import time
from http import HTTPStatus
from typing import Any, NoReturn

import httpx2
from authlib.integrations.starlette_client import OAuth, OAuthError
from joserfc.errors import JoseError
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from episodes_assets.accounts.audit import shortened
from episodes_assets.accounts.identity import AuthMethod, Identity
from episodes_assets.dashboard.auth.csrf import safe_next
from episodes_assets.dashboard.auth.login import OidcLogin, OidcRefusal, sign_in
from episodes_assets.dashboard.configuration import OidcProvider, decide_role, is_vouched_for
from episodes_assets.dashboard.site import site_of

STATE_COOKIE = "episodes_oidc"
# Browsers accept a cookie of this name from this host only, and not from a sibling of the same domain.
SECURE_STATE_COOKIE = f"__Host-{STATE_COOKIE}"
STATE_SECONDS = 600
ANSWER_SECONDS = 10.0
# How long the provider's metadata and keys are cached; a withdrawn key is trusted no longer than that.
METADATA_SECONDS = 3600.0
LONGEST_WHY = 500
# How far the provider's clock may be from ours.
LEEWAY_SECONDS = 60
# Signatures that only the provider can make: neither HMAC by the client's secret, nor `none`.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LOG = logging.getLogger(__name__)
Claims = dict[str, Any]


class _Refused(Exception):
    def __init__(self, refusal: OidcRefusal, why: str, email: str = "", *, is_on_record: bool = True) -> None:
        super().__init__(why)
        self.refusal = refusal
        self.why = why
        self.email = email
        self.is_on_record = is_on_record


class OidcClient:
    """The dashboard as a client of the OpenID Connect provider.

    Args:
        oidc: The provider, and who is let in.
    """

    def __init__(self, oidc: OidcProvider) -> None:
        self._oidc = oidc
        self._discovered_at = time.monotonic()
        secret = oidc.client_secret
        self._client = OAuth().register(
            "oidc",
            client_id=oidc.client_id,
            client_secret=secret.get_secret_value() if secret else None,
            server_metadata_url=f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": "openid email",
                "code_challenge_method": "S256",
                "timeout": ANSWER_SECONDS,
                "verify": httpx2.create_ssl_context(),  # once, and not for each request
            },
        )

    async def leave(self, request: Request) -> Response:
        """Redirect a browser to the provider."""
        wanted = safe_next(request.query_params.get("next"))
        try:
            await self._discover()
            request.session["next"] = wanted
            answer = await self._client.authorize_redirect(request, request.url_for("oidc_return"))
        except _Refused as refused:
            return await self._refuse(request, refused, wanted)
        assert isinstance(answer, Response)  # noqa: S101  Authlib has no types
        return answer

    async def return_(self, request: Request) -> Response:
        """Log in a browser that the provider has redirected back, or show why not."""
        wanted = safe_next(request.session.pop("next", None))
        try:
            await self._discover()
            identity = self._identify(await self._read_claims(request))
        except _Refused as refused:
            return await self._refuse(request, refused, wanted)
        finally:
            # State and nonce are for one use, whatever came of it.
            request.session.clear()
        return await sign_in(request, identity, wanted)

    async def _discover(self) -> None:
        if time.monotonic() - self._discovered_at > METADATA_SECONDS:
            self._client.server_metadata.clear()  # the provider's keys among it
            self._discovered_at = time.monotonic()
        try:
            metadata = await self._client.load_server_metadata()
        except (httpx2.HTTPError, ValueError) as error:
            raise _no_answer(repr(error)) from error
        if metadata.get("issuer") != self._oidc.issuer:
            issuer = metadata.get("issuer")
            metadata.clear()  # so that it is not cached
            raise _no_answer(f"the issuer is {issuer!r}")
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [a for a in offered if a in ALGORITHMS]

    async def _read_claims(self, request: Request) -> Claims:
        """The verified claims of the ID token, with the e-mail address of the provider's user information."""
        # First of all: without a login begun in this browser, the request is forged (login CSRF).
        state = request.query_params.get("state", "")
        if not await self._client.framework.get_state_data(request.session, state):
            raise _Refused(
                OidcRefusal.NOT_BEGUN, "the state is not one that was begun here", is_on_record=False
            )
        try:
            token = await self._client.authorize_access_token(
                request,
                claims_options={
                    "iss": {"essential": True, "value": self._oidc.issuer},
                    "aud": {"essential": True, "value": self._oidc.client_id},
                },
                leeway=LEEWAY_SECONDS,
            )
            claims = token.get("userinfo")
            if claims and "email" not in claims:  # not every provider repeats it in the token
                more = await self._client.userinfo(token=token)
                claims = {**more, **claims} if more.get("sub") == claims["sub"] else claims
        except (OAuthError, JoseError, httpx2.HTTPError, ValueError, RuntimeError) as error:
            _explain(error)
        if not claims:
            raise _Refused(OidcRefusal.UNPROVEN, "there is no ID token")
        return dict(claims)

    def _identify(self, claims: Claims) -> Identity:
        email = claims.get("email")
        if not isinstance(email, str) or not email:
            raise _Refused(OidcRefusal.UNVERIFIED, "there is no e-mail address")
        # Only the boolean: some providers send the text "false".
        if claims.get("email_verified") is not True:
            raise _Refused(OidcRefusal.UNVERIFIED, "the e-mail address is not verified", email)
        if not is_vouched_for(self._oidc.issuer, email, claims.get("hd")):
            raise _Refused(OidcRefusal.UNVERIFIED, "the provider does not host the address", email)
        role = decide_role(email, email_verified=True, access=self._oidc.access)
        if role is None:
            raise _Refused(OidcRefusal.NOT_LET_IN, "no setting lets the address in", email)
        return Identity(email.lower(), role, AuthMethod.OIDC)

    async def _refuse(self, request: Request, refused: _Refused, wanted: str) -> Response:
        # Quoted, since part of it may come from the request's address (log injection).
        _LOG.warning("a sign-in through %s failed: %r", self._oidc.name, refused.why)
        # Anybody can send any number of requests without a login that was begun: they would fill the log.
        if refused.is_on_record:
            site = site_of(request)
            site.metrics.logins.labels(AuthMethod.OIDC.value, "refused").inc()
            await site.record(
                request,
                "login",
                "refused",
                name=refused.email,
                detail={"through": self._oidc.issuer, "why": shortened(refused.why, LONGEST_WHY)},
                is_refusal=True,
            )
        query = httpx2.QueryParams({"refused": refused.refusal.value, "next": wanted})
        return RedirectResponse(f"/login?{query}", status_code=HTTPStatus.SEE_OTHER)


def _no_answer(why: str) -> _Refused:
    return _Refused(OidcRefusal.NO_ANSWER, f"discovery: {why}", is_on_record=False)


def _explain(error: Exception) -> NoReturn:
    match error:
        case OAuthError(error="access_denied"):
            raise _Refused(OidcRefusal.CANCELLED, "the provider says access_denied") from error
        case OAuthError() | JoseError():
            raise _Refused(OidcRefusal.UNPROVEN, str(error)) from error
        case _:
            raise _Refused(OidcRefusal.NO_ANSWER, repr(error)) from error


def oidc_login(oidc: OidcProvider, *, signing_key: str, is_secure: bool) -> OidcLogin:
    """The login through a provider, for the login page and the auth gate.

    Its routes lie below `/auth`, and are public.

    Args:
        oidc: The provider, and who is let in.
        signing_key: Signs the cookie that keeps the state until the browser returns.
        is_secure: Whether browsers reach us over TLS.
    """
    client = OidcClient(oidc)
    state = Middleware(
        SessionMiddleware,
        secret_key=signing_key,
        session_cookie=SECURE_STATE_COOKIE if is_secure else STATE_COOKIE,
        max_age=STATE_SECONDS,
        path="/" if is_secure else "/auth",  # `__Host-` requires `/`
        same_site="lax",  # the provider sends the browser back from another site
        https_only=is_secure,
    )
    pages = Mount(
        "/auth",
        routes=[
            Route("/openid", client.leave, methods=["GET"], name="oidc_leave"),
            Route("/openid/callback", client.return_, methods=["GET"], name="oidc_return"),
        ],
        middleware=[state],
    )
    return OidcLogin(label=oidc.name, path="/auth/openid", routes=[pages])

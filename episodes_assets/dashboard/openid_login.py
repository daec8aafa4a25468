"""The button on the login page that leads to the OpenID provider, and what it leads to."""

from collections.abc import Mapping

from starlette.requests import HTTPConnection

from episodes_assets.accounts.identity import Way
from episodes_assets.dashboard.login import OpenidLogin
from episodes_assets.dashboard.openid import openid_routes
from episodes_assets.dashboard.sign_in import sign_in
from episodes_assets.dashboard.site import site_of
from episodes_assets.dashboard.ways_to_sign_in import OpenId


def openid_login(openid: OpenId, *, signing_key: str, is_secure: bool) -> OpenidLogin:
    """Signing in through a provider, as the login page and the gate know it.

    Args:
        openid: The provider, and who is let in.
        signing_key: Of the cookie that keeps the state on the way.
        is_secure: Whether browsers reach us over TLS.
    """
    routes = openid_routes(
        openid, sign_in=sign_in, record=_record, signing_key=signing_key, is_secure=is_secure
    )
    return OpenidLogin(label=openid.name, path="/auth/openid", routes=routes)


async def _record(
    connection: HTTPConnection,
    what: str,
    outcome: str,
    *,
    name: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    site = site_of(connection)
    site.metrics.logins.labels(Way.OPENID.value, outcome).inc()
    await site.record(connection, what, outcome, name=name, detail=detail)

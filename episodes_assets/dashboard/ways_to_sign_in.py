"""By which ways people sign in: passwords, OpenID Connect, or both; never none."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from pydantic import SecretStr

from episodes_assets.accounts.identity import Identity, Role, Way
from episodes_assets.dashboard.openid_access import OpenIdAccess, decide_role, domain_of
from episodes_assets.errors import BadSetting
from episodes_assets.settings import Settings

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class OpenId:
    """The OpenID provider, and who of its people is let in.

    Attributes:
        issuer: Its address; the discovery document lies below it.
        name: What people know it by.
        client_id: Of the dashboard, registered at the provider.
        client_secret: Of the dashboard; None where the provider gave it none.
        access: Who is let in.
    """

    issuer: str
    name: str
    client_id: str
    client_secret: SecretStr | None
    access: OpenIdAccess


@dataclass(frozen=True)
class WaysToSignIn:
    """By which ways people sign in.

    Attributes:
        password: Whether passwords are accepted.
        openid: The OpenID provider; None: there is none.
    """

    password: bool
    openid: OpenId | None

    def admit(self, identity: Identity) -> Identity | None:
        """Somebody with a session or a token as the settings have it now, whenever they signed in.

        Returns:
            With the role that they have today; None if they would not be let in any more.
        """
        match identity.way:
            case Way.PASSWORD:
                return identity if self.password else None
            case Way.OPENID:
                if self.openid is None:
                    return None
                role = decide_role(identity.name, email_verified=True, access=self.openid.access)
                return replace(identity, role=role) if role else None
            case Way.TOKEN:
                return identity


def read_ways_to_sign_in(settings: Settings) -> WaysToSignIn:
    """What the settings say.

    Raises:
        BadSetting: If nobody could sign in, or if a setting of OpenID Connect is missing or no good.
    """
    openid = _read_openid(settings) if settings.openid_issuer else None
    if openid is None and not settings.password_login:
        raise BadSetting(
            "nobody could sign in: EPISODES_PASSWORD_LOGIN is false and EPISODES_OPENID_ISSUER is not set",
            "set one of them",
        )
    return WaysToSignIn(password=settings.password_login, openid=openid)


def _read_openid(settings: Settings) -> OpenId:
    issuer = urlsplit(settings.openid_issuer)
    is_safe = issuer.scheme == "https" or (issuer.scheme == "http" and issuer.hostname in _LOOPBACK)
    if not is_safe or not issuer.hostname or issuer.query or issuer.fragment:
        raise BadSetting(
            f"EPISODES_OPENID_ISSUER = {settings.openid_issuer!r} is no good",
            "it is the provider's address as its discovery document has it, such as https://accounts.google.com",
        )
    if not settings.openid_client_id:
        raise BadSetting(
            "EPISODES_OPENID_ISSUER is set and EPISODES_OPENID_CLIENT_ID is not",
            "register the dashboard at the provider and set what it calls it",
        )
    access = OpenIdAccess(
        domains=frozenset(_domains(settings.openid_domains)),
        viewers=frozenset(_addresses("VIEWERS", settings.openid_viewers)),
        operators=frozenset(_addresses("OPERATORS", settings.openid_operators)),
        default_role=Role(settings.openid_default_role) if settings.openid_default_role else None,
    )
    if bool(access.domains) != bool(access.default_role):
        raise BadSetting(
            "only one of EPISODES_OPENID_DOMAINS and EPISODES_OPENID_DEFAULT_ROLE is set",
            "set both, and everybody of these domains has that role, or none, and only the listed are let in",
        )
    if not access.domains | access.viewers | access.operators:
        raise BadSetting(
            "EPISODES_OPENID_ISSUER is set and nobody is let in by it",
            "list people in EPISODES_OPENID_OPERATORS and EPISODES_OPENID_VIEWERS",
        )
    return OpenId(
        issuer=settings.openid_issuer,
        name=settings.openid_name or issuer.netloc,
        client_id=settings.openid_client_id,
        client_secret=settings.openid_client_secret,
        access=access,
    )


def _domains(text: str) -> Iterable[str]:
    for domain in _listed(text):
        if domain_of(f"a@{domain}") is None:
            raise BadSetting(
                f"{domain!r} in EPISODES_OPENID_DOMAINS is no domain", "list them as in example.com"
            )
        yield domain


def _addresses(which: str, text: str) -> Iterable[str]:
    for address in _listed(text):
        if domain_of(address.replace("*@", "a@", 1) if address.startswith("*@") else address) is None:
            raise BadSetting(
                f"{address!r} in EPISODES_OPENID_{which} is no e-mail address",
                "list them as in ann@example.com, or *@example.com for a whole domain",
            )
        yield address


def _listed(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",") if part.strip()]

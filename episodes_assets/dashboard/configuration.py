"""How the dashboard is served: where it listens, TLS, its names, and who may log in how.

It answers to its own names alone, which rejects DNS rebinding. People log in with passwords, OpenID Connect,
or both, and at least one of them must be on. Which people of an OpenID Connect provider are let in, and with
which role, is decided here, again at each request; the protocol is `auth/oidc.py`.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.accounts.sessions import Lifetimes
from episodes_assets.dashboard.certificate import require_usable
from episodes_assets.errors import BadSetting
from episodes_assets.settings import Settings

GOOGLE = "https://accounts.google.com"
# Google gives these out itself; any other address it hosts comes with the claim `hd`.
_OF_GOOGLE_ITSELF = frozenset({"gmail.com", "googlemail.com"})


@dataclass(frozen=True)
class OidcAccess:
    """Who is let in. Every list is of lower case.

    Attributes:
        domains: E-mail domains of which everybody has the default role.
        viewers: E-mail addresses, or `*@domain`.
        operators: E-mail addresses, or `*@domain`.
        default_role: Of everybody else in `domains`; None: nobody else.
    """

    domains: frozenset[str] = frozenset()
    viewers: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    default_role: Role | None = None


def decide_role(email: str, *, email_verified: bool, access: OidcAccess) -> Role | None:
    """The role of an e-mail address; None: it is not let in.

    An address in both lists is an operator's. Upper and lower case are the same, a subdomain is another
    domain, and an address that is not plain ASCII is never let in: it could look like another (homograph).
    """
    domain = domain_of(email)
    if domain is None or not email_verified:
        return None
    names = {email.lower(), f"*@{domain}"}
    if names & access.operators:
        return Role.OPERATOR
    if names & access.viewers:
        return Role.VIEWER
    return access.default_role if domain in access.domains else None


def domain_of(email: str) -> str | None:
    """The domain of an e-mail address in lower case; None if it is no plain address."""
    local, at, domain = email.lower().partition("@")
    is_plain = email.isascii() and email.isprintable() and not {" ", "*", ","} & set(email)
    return domain if is_plain and local and at and domain and "@" not in domain else None


def is_vouched_for(issuer: str, email: str, hosted_domain: object) -> bool:
    """Whether the provider is authoritative for the address, and has not only verified it once by mail.

    Anybody may open a Google account with an address at a company, and keeps it after leaving. Google
    is authoritative for its own addresses and for those it hosts, whose domain is in the claim `hd`. Other
    providers' `email_verified` is trusted.
    """
    if issuer.rstrip("/") != GOOGLE:
        return True
    domain = domain_of(email)
    if domain in _OF_GOOGLE_ITSELF:
        return True
    return isinstance(hosted_domain, str) and hosted_domain.lower() == domain


_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class OidcProvider:
    """The OpenID Connect provider, and who of its people is let in.

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
    access: OidcAccess


@dataclass(frozen=True)
class AuthMethods:
    """How people sign in.

    Attributes:
        password: Whether passwords are accepted.
        oidc: The OpenID Connect provider; None: there is none.
    """

    password: bool
    oidc: OidcProvider | None

    def admit(self, identity: Identity) -> Identity | None:
        """Apply today's settings to an identity whose session or token may be older.

        Returns:
            The identity with its current role; None if it would not be let in any more.
        """
        match identity.method:
            case AuthMethod.PASSWORD:
                return identity if self.password else None
            case AuthMethod.OIDC:
                if self.oidc is None:
                    return None
                role = decide_role(identity.name, email_verified=True, access=self.oidc.access)
                return replace(identity, role=role) if role else None
            case AuthMethod.TOKEN:
                return identity


def read_auth_methods(settings: Settings) -> AuthMethods:
    """What the settings say.

    Raises:
        BadSetting: If nobody could sign in, or if a setting of OpenID Connect is missing or invalid.
    """
    oidc = _read_oidc(settings) if settings.openid_issuer else None
    if oidc is None and not settings.password_login:
        raise BadSetting(
            "nobody could sign in: EPISODES_PASSWORD_LOGIN is false and EPISODES_OPENID_ISSUER is not set",
            "set one of them",
        )
    return AuthMethods(password=settings.password_login, oidc=oidc)


def _read_oidc(settings: Settings) -> OidcProvider:
    issuer = urlsplit(settings.openid_issuer)
    is_safe = issuer.scheme == "https" or (issuer.scheme == "http" and issuer.hostname in _LOOPBACK)
    if not is_safe or not issuer.hostname or issuer.query or issuer.fragment:
        raise BadSetting(
            f"EPISODES_OPENID_ISSUER = {settings.openid_issuer!r} is invalid",
            "it is the provider's address as its discovery document has it, such as https://accounts.google.com",
        )
    if not settings.openid_client_id:
        raise BadSetting(
            "EPISODES_OPENID_ISSUER is set and EPISODES_OPENID_CLIENT_ID is not",
            "register the dashboard at the provider and set what it calls it",
        )
    access = OidcAccess(
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
    return OidcProvider(
        issuer=settings.openid_issuer,
        name=settings.openid_name or issuer.netloc,
        client_id=settings.openid_client_id,
        client_secret=settings.openid_client_secret,
        access=access,
    )


def _domains(text: str) -> Iterable[str]:
    for domain in _entries(text):
        if domain_of(f"a@{domain}") is None:
            raise BadSetting(
                f"{domain!r} in EPISODES_OPENID_DOMAINS is no domain", "list them as in example.com"
            )
        yield domain


def _addresses(which: str, text: str) -> Iterable[str]:
    for address in _entries(text):
        if domain_of(address.replace("*@", "a@", 1) if address.startswith("*@") else address) is None:
            raise BadSetting(
                f"{address!r} in EPISODES_OPENID_{which} is no e-mail address",
                "list them as in ann@example.com, or *@example.com for a whole domain",
            )
        yield address


def _entries(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",") if part.strip()]


LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Configuration:
    """How the dashboard is served.

    Attributes:
        host: The address it listens on.
        port: Its port.
        names: The names and addresses by which browsers may call it.
        certificate: PEM file of its certificate, where it ends TLS itself.
        key: PEM file of the certificate's key.
        trusted_proxies: Whose X-Forwarded-* headers are trusted; none unless a proxy ends TLS.
        lifetimes: Of a session.
        password_login: Whether passwords are accepted.
        is_read_only: Whether even operators change nothing.
        oidc: The OpenID Connect provider through which people sign in, if there is one.
    """

    host: str
    port: int
    names: tuple[str, ...]
    certificate: Path | None
    key: Path | None
    trusted_proxies: tuple[str, ...]
    lifetimes: Lifetimes
    password_login: bool
    is_read_only: bool
    oidc: OidcProvider | None = None

    @property
    def auth_methods(self) -> AuthMethods:
        """How people sign in."""
        return AuthMethods(self.password_login, self.oidc)

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it over TLS, ended by us or by a proxy."""
        return self.certificate is not None or bool(self.trusted_proxies)

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        scheme = "https" if self.certificate else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


def read_configuration(
    settings: Settings, *, host: str, port: int, is_read_only: bool = False
) -> Configuration:
    """What the settings and the command's options say together.

    Raises:
        BadSetting: If it would listen beyond this machine without TLS, if the certificate or its key
            cannot be used, if a host name is invalid, or if nobody could sign in.
    """
    methods = read_auth_methods(settings)
    certificate, key = _certificate(settings)
    at_proxy = settings.tls_ends_at_proxy
    if not is_loopback(host) and certificate is None and not at_proxy:
        raise BadSetting(
            f"passwords would travel in the clear to {host}",
            "set EPISODES_TLS_CERTIFICATE and EPISODES_TLS_KEY, or EPISODES_TLS_ENDS_AT_PROXY=true behind"
            " a proxy that ends TLS",
        )
    return Configuration(
        host=host,
        port=port,
        names=_names(settings, host),
        certificate=certificate,
        key=key,
        trusted_proxies=_proxies(settings) if at_proxy else (),
        lifetimes=Lifetimes(
            absolute=timedelta(hours=settings.session_hours),
            idle=timedelta(minutes=settings.session_idle_minutes),
        ),
        password_login=methods.password,
        is_read_only=is_read_only,
        oidc=methods.oidc,
    )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _certificate(settings: Settings) -> tuple[Path | None, Path | None]:
    certificate, key = settings.tls_certificate, settings.tls_key
    if (certificate is None) != (key is None):
        raise BadSetting("only one of EPISODES_TLS_CERTIFICATE and EPISODES_TLS_KEY is set", "set both")
    if certificate is None or key is None:
        return None, None
    if settings.tls_ends_at_proxy:
        raise BadSetting(
            "EPISODES_TLS_CERTIFICATE is set and EPISODES_TLS_ENDS_AT_PROXY as well", "set one of them"
        )
    require_usable(certificate, key)
    return certificate, key


def _proxies(settings: Settings) -> tuple[str, ...]:
    listed = _listed(settings.trusted_proxies)
    for address in listed:
        try:
            ipaddress.ip_network(address)
        except ValueError as error:
            raise BadSetting(
                f"{address!r} in EPISODES_TRUSTED_PROXIES is not an address",
                "list addresses or networks, such as 127.0.0.1 or 10.0.0.0/8",
            ) from error
    if not listed:
        raise BadSetting("EPISODES_TRUSTED_PROXIES names no proxy", "list the one that ends TLS")
    return listed


def _names(settings: Settings, host: str) -> tuple[str, ...]:
    """The host names that are answered to; listing them rejects DNS rebinding, so there are no wildcards."""
    listed = _listed(settings.dashboard_hosts)
    for name in listed:
        if "*" in name or "/" in name or (":" in name and not _is_address(name)):
            raise BadSetting(
                f"{name!r} in EPISODES_DASHBOARD_HOSTS is not a host", "list names without scheme or port"
            )
    own = () if host in ("0.0.0.0", "::") else (host,)  # noqa: S104
    # With brackets as well, which is how a Host header has an IPv6 address.
    plain = dict.fromkeys((*LOOPBACK_NAMES, *own, *listed))
    return tuple(name for each in plain for name in ((each, f"[{each}]") if ":" in each else (each,)))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())

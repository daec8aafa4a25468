"""How the dashboard is served: where it listens, over TLS or not, by which names, who may sign in how."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from episodes_assets.accounts.sessions import Lifetimes
from episodes_assets.dashboard.ways_to_sign_in import OpenId, WaysToSignIn, read_ways_to_sign_in
from episodes_assets.errors import BadSetting
from episodes_assets.settings import Settings

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
        trusted_proxies: Whose X-Forwarded-* headers are believed; none unless a proxy ends TLS.
        lifetimes: Of a session.
        password_login: Whether passwords are accepted.
        is_read_only: Whether even operators change nothing.
        openid: The OpenID provider through which people sign in, if there is one.
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
    openid: OpenId | None = None

    @property
    def ways(self) -> WaysToSignIn:
        """By which ways people sign in."""
        return WaysToSignIn(self.password_login, self.openid)

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
            cannot be used, if a name is none, or if nobody could sign in.
    """
    ways = read_ways_to_sign_in(settings)
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
        password_login=ways.password,
        is_read_only=is_read_only,
        openid=ways.openid,
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
    if certificate is None:
        return None, None
    if settings.tls_ends_at_proxy:
        raise BadSetting(
            "EPISODES_TLS_CERTIFICATE is set and EPISODES_TLS_ENDS_AT_PROXY as well", "set one of them"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise BadSetting(
            f"{certificate} cannot be used with its key ({error.strerror or error})",
            "EPISODES_TLS_CERTIFICATE and EPISODES_TLS_KEY name PEM files that belong together",
        ) from error
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
    """Never any name: a page whose name is made to point here would be at home with us."""
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

"""Which hosts DSNs and URLs lead to, and which of them a process outside production may reach.

Default deny: outside production every host must be listed in `EPISODES_ALLOWED_HOSTS`, so that a development
copy cannot reach production by mistake. Hosts are found in DSNs as libpq reads them, and in other URLs as
fsspec does; the decision is a pure function. No process gets a DSN or opens the lake without
`require_allowed`. Which host names the dashboard answers to is decided in `dashboard/configuration.py`.
"""

import ipaddress
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from episodes_assets.errors import BadSetting, HostNotAllowed
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.settings import Settings

SETTING = "EPISODES_ALLOWED_HOSTS"
_NAME = r"[^\s,/@*:\[\]?#%]+"
_ADDRESS = r"[0-9a-fA-F.]*:[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%[\w.-]+)?"  # IPv6
_ENTRY = re.compile(
    rf"(?:(?P<protocol>[a-zA-Z][\w+.-]*)://)?"
    rf"(?:(?P<bare>{_ADDRESS})|(?:\[(?P<address>{_ADDRESS})\]|(?P<name>{_NAME})?)(?::(?P<port>\d{{1,5}}))?)"
)
_HOST = re.compile(rf"{_ADDRESS}|{_NAME}")


@dataclass(frozen=True, order=True)
class Host:
    """A host or a bucket, which is compared with those that are allowed.

    Attributes:
        protocol: Of a lake, such as `s3`; empty for a database.
        name: A name or an address, or a bucket; in lower case.
        port: Its port; None stands for every port.
    """

    protocol: str
    name: str
    port: int | None

    def __str__(self) -> str:
        """As EPISODES_ALLOWED_HOSTS spells it."""
        host = f"[{self.name}]" if ":" in self.name and self.port is not None else self.name
        port = "" if self.port is None else f":{self.port}"
        return f"{self.protocol}://{host}{port}" if self.protocol else f"{host}{port}"


@dataclass(frozen=True)
class Request:
    """A setting that leads to a host."""

    setting: str
    host: Host


def make_host(host: str, port: int | None, protocol: str = "") -> Host | None:
    """A host in its canonical spelling; None if the name is no host."""
    if host and not _HOST.fullmatch(host):
        return None
    spelled = host.lower().rstrip(".")
    with suppress(ValueError):
        spelled = str(ipaddress.ip_address(spelled))
    return Host(protocol.lower(), spelled, port)


def parse_entries(text: str) -> frozenset[Host]:
    """The hosts that a comma-separated list allows: `host`, `host:port` or `protocol://host`.

    Raises:
        BadSetting: If an entry is none of these.
    """
    entries = [entry.strip() for entry in text.split(",")]
    return frozenset(_parse_entry(entry) for entry in entries if entry)


def _parse_entry(entry: str) -> Host:
    found = _ENTRY.fullmatch(entry)
    if found is not None:
        host = found["bare"] or found["address"] or found["name"] or ""
        port = None if found["port"] is None else int(found["port"])
        made = make_host(host, port, found["protocol"] or "")
        if made is not None and (made.name or made.protocol):
            return made
    # It may be a whole DSN, so only what cannot be a secret is repeated.
    shown = "an entry with an @" if "@" in entry else repr(entry)
    raise BadSetting(
        f"{SETTING} is invalid: {shown} is not a host",
        "list each as host, host:port or protocol://host, separated by commas; there are no wildcards",
    )


def is_allowed(host: Host, entries: frozenset[Host]) -> bool:
    """Whether a host is listed, with this port or with every port."""
    return host in entries or replace(host, port=None) in entries


def require_listed(requests: Sequence[Request], listed: str, environment: str) -> None:
    """Refuse when any host is not listed.

    Args:
        requests: Everything that the process is pointed at.
        listed: What EPISODES_ALLOWED_HOSTS says.
        environment: The process's own, for the message.

    Raises:
        HostNotAllowed: If a host is not listed; the message names each host, allowed or denied, and
            the setting that allows the denied ones as well.
        BadSetting: If the list cannot be read.
    """
    entries = parse_entries(listed)
    denied = {request.host for request in requests if not is_allowed(request.host, entries)}
    if not denied:
        return
    shown = "; ".join(
        f"{request.setting} -> {request.host} {'denied' if request.host in denied else 'allowed'}"
        for request in requests
    )
    given = [entry.strip() for entry in listed.split(",") if entry.strip()]
    opened = ",".join([*given, *(str(host) for host in sorted(denied, key=str))])
    raise HostNotAllowed(
        f"environment {environment!r} reaches no host that {SETTING} does not list ({shown})",
        f"check each denied one; to open them set {SETTING}={opened}",
    )


def describe_open(requests: Iterable[Request]) -> str:
    """The hosts with the settings that lead there; empty when there are none."""
    settings: dict[Host, list[str]] = {}
    for request in requests:
        settings.setdefault(request.host, []).append(request.setting)
    return ", ".join(f"{host} ({', '.join(names)})" for host, names in settings.items())


SNAPSHOTS = "EPISODES_SNAPSHOTS_URL"
LAKE = "EPISODES_LAKE_URL"
_DEFAULT_PORT = "5432"
_LEADING = {"host", "hostaddr", "port", "service"}
_S3 = {"s3", "s3a"}
_S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
# Where alerts are sent to: the names of the settings.
_ALERTING = ("alert_smtp_url", "alert_slack_url", "alert_webhook_url", "dead_man_url")
_PORTS = {"http": 80, "https": 443, "smtp": 25, "smtps": 465}
_LOCAL = {"file", "local", "memory", "data"}
# They work on what the rest of a chain names: `simplecache::s3://bucket/prefix`.
_WRAPPERS = {"simplecache", "filecache", "blockcache", "cached", "dir", "zip", "tar"}


def hosts_of_dsn(setting: str, dsn: str) -> list[Host]:
    """The hosts of a DSN: each name and each address that it, or libpq's environment, names.

    A name counts beside the address that stands for it, because not every driver knows `hostaddr`. A
    unix socket is no host.

    Args:
        setting: Where the DSN comes from, for messages, which never show the DSN itself.
        dsn: A libpq URL or connection string.

    Raises:
        BadSetting: If it cannot be read, or names a service, whose file could name any host.
    """
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if name in _LEADING}
    except psycopg.ProgrammingError as error:
        raise BadSetting(
            f"{setting}: a DSN cannot be read", "spell it postgresql://user:password@host:5432/database"
        ) from error
    defaults = {
        name: os.fsdecode(option.val)
        for option in Conninfo.get_defaults()
        if (name := option.keyword.decode()) in _LEADING and option.val is not None
    }
    if "service" in defaults | given:
        raise BadSetting(
            f"{setting} leads to a service of libpq ({'service=' if 'service' in given else 'PGSERVICE'}),"
            " whose file may name any host",
            "outside production, write the host into the DSN and unset PGSERVICE",
        )
    # For an empty value libpq takes its own default, and asyncpg the environment's.
    filled_in = {name: value for name, value in given.items() if value}
    ways = (defaults | given, defaults | filled_in)
    return list(dict.fromkeys(host for parts in ways for host in hosts_of_parts(setting, parts)))


def hosts_of_parts(setting: str, parts: Mapping[str, str]) -> list[Host]:
    """The hosts of a DSN that libpq has parsed, without those of libpq's environment.

    Raises:
        BadSetting: If a host or a port is invalid.
    """
    ports = [port or _DEFAULT_PORT for port in parts.get("port", "").split(",")]
    last = itertools.repeat(ports[-1])
    for port in ports:
        _host(setting, "", port)  # raises for an invalid one, even if no host or a socket goes with it
    return [
        _host(setting, host, port)
        for listed in (parts.get("host", ""), parts.get("hostaddr", ""))
        for host, port in zip(map(str.strip, listed.split(",")), itertools.chain(ports, last), strict=False)
        if host and not host.startswith(("/", "@"))  # sockets, the second one abstract
    ]


def _host(setting: str, host: str, port: str | None, protocol: str = "") -> Host:
    number = int(port) if port is not None and port.isascii() and port.isdigit() else None
    made = make_host(host, number, protocol)
    if made is None or (port is not None and number is None):
        raise _invalid(setting)
    return made


def _invalid(setting: str) -> BadSetting:
    # A password that is not percent-encoded ends up in the host or the port: show neither.
    return BadSetting(
        f"{setting} names an invalid host or port", "percent-encode the password, and check the host"
    )


def without_user(url: str) -> str:
    """A folder or an fsspec URL, chained or not, without user names and passwords, for messages."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def hosts_of_url(setting: str, url: str) -> list[Host]:
    """The hosts of a folder or an fsspec URL, chained or not; a local one has none.

    A bucket lies where the environment says, so the host of an endpoint that it names is one as well.

    Raises:
        BadSetting: If its host cannot be read.
    """
    links = url.split("::")
    hosts = [host for link in links for host in _hosts_of_link(setting, link, is_chained=len(links) > 1)]
    endpoints = {os.environ[name] for name in _S3_ENDPOINTS if os.environ.get(name)}
    if endpoints and any(host.protocol in _S3 for host in hosts):
        hosts += [host for each in sorted(endpoints) for host in _hosts_of_endpoint(setting, each)]
    return hosts


def _hosts_of_endpoint(setting: str, endpoint: str) -> Iterator[Host]:
    for host in _hosts_of_link(setting, endpoint, is_chained=False):
        yield _host(setting, host.name, str(host.port or _PORTS.get(host.protocol, 443)))


def _hosts_of_link(setting: str, link: str, *, is_chained: bool) -> Iterator[Host]:
    protocol, separator, rest = link.partition("://")
    if not separator and not (is_chained and protocol):
        return  # a path
    if "://" in rest:
        yield from _hosts_of_link(setting, rest, is_chained=False)
    if protocol.lower() in _LOCAL | _WRAPPERS or protocol.startswith(("/", ".", "~")):
        return
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _invalid(setting) from error
    yield _host(setting, host, None if port is None else str(port), protocol)


def requested(settings: Settings) -> list[Request]:
    """Every host that the settings lead to: those of databases first, those of alerts last.

    Raises:
        BadSetting: If a DSN, the snapshots' or the lake's URL, or one of alerts, cannot be read.
    """
    administrators = ["admin", *(f"{database.value}_admin" for database in Database)]
    found: list[Request] = []
    for name in [*(purpose.value for purpose in Purpose), *administrators]:
        secret = getattr(settings, f"{name}_dsn")
        if secret is not None:
            setting = f"EPISODES_{name.upper()}_DSN"
            found += [Request(setting, host) for host in hosts_of_dsn(setting, secret.get_secret_value())]
    for setting, url in ((SNAPSHOTS, settings.snapshots), (LAKE, settings.lake)):
        found += [Request(setting, host) for host in hosts_of_url(setting, url)]
    for name in _ALERTING:
        if (secret := getattr(settings, name)) is not None:
            setting = f"EPISODES_{name.upper()}"
            found += [
                Request(setting, host) for host in _hosts_of_endpoint(setting, secret.get_secret_value())
            ]
    return found


def require_allowed(settings: Settings) -> list[Request]:
    """Refuse settings that lead to a host which is not listed; production needs no list.

    Returns:
        The hosts that are allowed; none in production, where no list is needed.

    Raises:
        HostNotAllowed: If a host is not listed.
        BadSetting: If a DSN, the URL or the list cannot be read.
    """
    if settings.is_production:
        return []
    requests = requested(settings)
    require_listed(requests, settings.allowed_hosts, settings.environment)
    return requests


def require_allowed_dsn(settings: Settings, setting: str, dsn: str) -> None:
    """Refuse one DSN, as `require_allowed`."""
    if not settings.is_production:
        requests = [Request(setting, host) for host in hosts_of_dsn(setting, dsn)]
        require_listed(requests, settings.allowed_hosts, settings.environment)


def allowed_lake_url(settings: Settings) -> str:
    """The folder or URL of the lake, after checking its host.

    Raises:
        HostNotAllowed: Outside production, if it lies on a host that is not listed.
        BadSetting: Outside production, if the URL or the list cannot be read.
    """
    require_allowed_url(settings, LAKE, settings.lake)
    return settings.lake


def require_allowed_url(settings: Settings, setting: str, url: str) -> None:
    """Refuse a lake, or the snapshots of an older release, as `require_allowed`."""
    if not settings.is_production:
        requests = [Request(setting, host) for host in hosts_of_url(setting, url)]
        require_listed(requests, settings.allowed_hosts, settings.environment)

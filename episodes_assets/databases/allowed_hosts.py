"""Which hosts a process outside production may reach: those that EPISODES_ALLOWED_HOSTS lists.

A development copy is dangerous until proven otherwise, so every host is denied until somebody has
decided to open it. What is decided here is a pure function of the list and of what was asked for;
`episodes_assets.databases.doors` finds out what a DSN or a URL asks for.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from episodes_assets.errors import BadSetting, HostNotAllowed

SETTING = "EPISODES_ALLOWED_HOSTS"

_NAME = r"[^\s,/@*:\[\]?#%]+"
_ADDRESS = r"[0-9a-fA-F.]*:[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%[\w.-]+)?"  # IPv6
_ENTRY = re.compile(
    rf"(?:(?P<protocol>[a-zA-Z][\w+.-]*)://)?"
    rf"(?:(?P<bare>{_ADDRESS})|(?:\[(?P<address>{_ADDRESS})\]|(?P<name>{_NAME})?)(?::(?P<port>\d{{1,5}}))?)"
)
_HOST = re.compile(rf"{_ADDRESS}|{_NAME}")


@dataclass(frozen=True, order=True)
class Door:
    """A place on the network.

    Attributes:
        protocol: Of a lake, such as `s3`; empty for a database.
        host: A host or an address, or a bucket; in lower case.
        port: Its port; None stands for every port.
    """

    protocol: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """As EPISODES_ALLOWED_HOSTS spells it."""
        host = f"[{self.host}]" if ":" in self.host and self.port is not None else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.protocol}://{host}{port}" if self.protocol else f"{host}{port}"


@dataclass(frozen=True)
class Request:
    """A setting that leads to a door."""

    setting: str
    door: Door


def make_door(host: str, port: int | None, protocol: str = "") -> Door | None:
    """A door with its host in the one spelling that is compared; None if that is no host."""
    if host and not _HOST.fullmatch(host):
        return None
    spelled = host.lower().rstrip(".")
    with suppress(ValueError):
        spelled = str(ipaddress.ip_address(spelled))
    return Door(protocol.lower(), spelled, port)


def parse_entries(text: str) -> frozenset[Door]:
    """The doors that a comma-separated list opens: `host`, `host:port` or `protocol://host`.

    Raises:
        BadSetting: If an entry is none of these.
    """
    entries = [entry.strip() for entry in text.split(",")]
    return frozenset(_parse_entry(entry) for entry in entries if entry)


def _parse_entry(entry: str) -> Door:
    found = _ENTRY.fullmatch(entry)
    if found is not None:
        host = found["bare"] or found["address"] or found["name"] or ""
        port = None if found["port"] is None else int(found["port"])
        door = make_door(host, port, found["protocol"] or "")
        if door is not None and (door.host or door.protocol):
            return door
    # It may be a whole DSN, so only what cannot be a secret is repeated.
    shown = "an entry with an @" if "@" in entry else repr(entry)
    raise BadSetting(
        f"{SETTING} is no good: {shown} is not a host",
        "list each as host, host:port or protocol://host, separated by commas; there are no wildcards",
    )


def is_allowed(door: Door, entries: frozenset[Door]) -> bool:
    """Whether a door is listed, by itself or with every port of its host."""
    return door in entries or replace(door, port=None) in entries


def require_allowed(requests: Sequence[Request], listed: str, environment: str) -> None:
    """Refuse when any door is not listed.

    Args:
        requests: Everything that the process is pointed at.
        listed: What EPISODES_ALLOWED_HOSTS says.
        environment: The process's own, for the message; production is not asked.

    Raises:
        HostNotAllowed: If a door is not listed; the message names each door, allowed or denied, and
            the setting that opens the denied ones as well.
        BadSetting: If the list cannot be read.
    """
    entries = parse_entries(listed)
    denied = {request.door for request in requests if not is_allowed(request.door, entries)}
    if not denied:
        return
    shown = "; ".join(
        f"{request.setting} -> {request.door} {'denied' if request.door in denied else 'allowed'}"
        for request in requests
    )
    given = [entry.strip() for entry in listed.split(",") if entry.strip()]
    opened = ",".join([*given, *(str(door) for door in sorted(denied, key=str))])
    raise HostNotAllowed(
        f"environment {environment!r} reaches no host that {SETTING} does not list ({shown})",
        f"check each denied one; to open them set {SETTING}={opened}",
    )


def describe_open(requests: Iterable[Request]) -> str:
    """The doors with the settings that lead there; empty when there are none."""
    settings: dict[Door, list[str]] = {}
    for request in requests:
        settings.setdefault(request.door, []).append(request.setting)
    return ", ".join(f"{door} ({', '.join(names)})" for door, names in settings.items())

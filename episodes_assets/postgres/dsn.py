"""Which DSN serves which role, configured or embedded, and a DSN as asyncpg reads one.

A purpose is a role in a database (`postgres/databases.py`). A process asks for the purposes of its own work
and is given nothing else, and so are its children, from which all other DSNs and secrets are withheld (least
privilege). Whether a DSN's host may be reached is decided in `hosts`.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from episodes_assets.errors import BadSetting
from episodes_assets.postgres import embedded, hosts
from episodes_assets.postgres.databases import Purpose
from episodes_assets.setting_fields import Section, section_of
from episodes_assets.settings import WITHHELD, Settings, with_settings


@dataclass(frozen=True)
class Dsns:
    """The DSNs a process has been given."""

    by_purpose: Mapping[Purpose, str]
    is_embedded: bool

    def require(self, purpose: Purpose) -> str:
        """The DSN for a purpose.

        Raises:
            BadSetting: If DSNs are configured, but not this one.
        """
        try:
            return self.by_purpose[purpose]
        except KeyError:
            raise BadSetting(
                f"{purpose.setting} is not set",
                "set it, or unset every EPISODES_*_DSN to use the embedded databases",
            ) from None

    def environment(self, purposes: Collection[Purpose]) -> dict[str, str]:
        """The environment variables that hand just these purposes to a child process.

        All other DSNs are withheld from it, administrators' included, even if `.env` has them; programs of
        Dagster's are kept from reading that by themselves in `cli/current_folder.py`. Secrets by which people
        are alerted go to processes that decide about alerts, in the queue; all other secrets are the
        dashboard's, and are withheld from every other process.
        """
        withheld = {
            f"EPISODES_{name.upper()}": WITHHELD
            for name, field in Settings.model_fields.items()
            if _is_secret(field.annotation) and _owner(name, field) not in purposes
        }
        return withheld | {
            purpose.setting: self.by_purpose[purpose] for purpose in purposes if purpose in self.by_purpose
        }

    @contextmanager
    def as_environment(self, purposes: Collection[Purpose]) -> Iterator[None]:
        """Let this process's children inherit just these purposes while the block lasts.

        For children that a library starts, to which no environment can be handed.
        """
        with inherited(self.environment(purposes)):
            yield


@contextmanager
def inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Let this process and its children have these variables while the block lasts.

    Args:
        variables: By their names in capitals; no other spelling of them is inherited.
    """
    before = dict(os.environ)
    handed = with_settings(before, variables)
    changed = [name for name in {**before, **handed} if before.get(name) != handed.get(name)]
    _set_variables(changed, handed)
    try:
        yield
    finally:
        _set_variables(changed, before)


def _set_variables(names: Iterable[str], values: Mapping[str, str]) -> None:
    """Set this process's variables of some names; unset those that have no value."""
    for name in names:
        if name in values:
            os.environ[name] = values[name]
        else:
            os.environ.pop(name, None)


def _owner(secret: str, field: FieldInfo) -> Purpose | None:
    """The purpose of the processes that a secret is for; of DSNs, none but that which is handed on."""
    if secret.endswith("_dsn"):
        return None
    return Purpose.QUEUE if section_of(field) is Section.ALERTS else Purpose.DASHBOARD


def _is_secret(annotation: object) -> bool:
    return SecretStr in (annotation, *get_args(annotation))


def resolve_dsns(settings: Settings) -> Dsns:
    """Find the databases; with no DSN configured, start the embedded server.

    Files that a DSN names are looked for where this process is now, also by its children.

    Raises:
        HostNotAllowed: Outside production, if a setting names a host that is not listed.
        BadSetting: Outside production, if a DSN or a URL cannot be read.
        DatabaseUnreachable: If the embedded server does not start.
    """
    hosts.require_allowed(settings)
    configured = {
        purpose: _with_absolute_paths(secret.get_secret_value())
        for purpose in Purpose
        if (secret := getattr(settings, f"{purpose.value}_dsn")) is not None
    }
    if configured:
        return Dsns(configured, is_embedded=False)
    server = embedded.start(settings.home)
    dsns = {purpose: server.dsn(purpose.embedded_role, purpose.database.value) for purpose in Purpose}
    # Environment variables of libpq could redirect even these.
    hosts.require_allowed_dsn(settings, "the embedded PostgreSQL", dsns[Purpose.QUEUE])
    return Dsns(dsns, is_embedded=True)


# Parameters that name files or folders, and what names none: the certificates of the machine.
_PATHS = ("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir")
NO_PATH = "system"


def _with_absolute_paths(dsn: str) -> str:
    """The same DSN for processes whose current folder is another one."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:  # whoever connects says what is wrong
        return dsn
    relative = {
        name: str(Path(path).absolute())
        for name in _PATHS
        if (path := str(parts.get(name) or "")) not in ("", NO_PATH) and not Path(path).is_absolute()
    }
    return make_conninfo(dsn, **relative) if relative else dsn


_KNOWN = (
    "host", "port", "user", "password", "dbname", "passfile", "options", "application_name",
    "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname",
    "gsslib",
)  # fmt: skip


def to_asyncpg_url(dsn: str) -> str:
    """The same database for asyncpg.

    asyncpg takes a string that is no URL for the name of a database, and an unknown parameter for a setting
    of the server, which then refuses the connection.

    Args:
        dsn: A libpq URL or connection string.
    """
    parts = conninfo_to_dict(dsn)
    return "postgresql://?" + urlencode({name: str(parts[name]) for name in _KNOWN if name in parts})

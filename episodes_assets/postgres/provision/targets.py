"""The databases as an administrator meets them: names, servers, roles; and `episodes db stamp`.

A change of stamp lets databases belong to another environment, when asked explicitly. Looking at a stamp is
`postgres/admission.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from episodes_assets.errors import BadSetting, NotProvisioned, WrongEnvironment
from episodes_assets.postgres import admission, embedded
from episodes_assets.postgres.connect import Connection, connect, describe
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.locks import LOCK_SECONDS
from episodes_assets.settings import Settings


def replace_stamp(connection: psycopg.Connection[Any], old: str, new: str) -> bool:
    """Replace the stamp `old` by another one (compare-and-set).

    Returns:
        Whether it was stamped with `old`; if not, nothing is changed.
    """
    changed = connection.execute(
        "UPDATE public.environment_stamp SET environment = %s, stamped_at = now() WHERE environment = %s",
        [new, old],
    )
    return changed.rowcount == 1


@dataclass(frozen=True)
class Target:
    """One database to administer.

    Attributes:
        database: Which of the four.
        name: What it is called on its server.
        server: An administrator's DSN for the server.
        roles: The roles' names by purpose.
        passwords: Their passwords by purpose, where they have some.
        input_roles: The roles of the input, whichever database this is.
    """

    database: Database
    name: str
    server: str
    roles: Mapping[Purpose, str]
    passwords: Mapping[Purpose, str | None]
    input_roles: frozenset[str]

    @property
    def admin_dsn(self) -> str:
        """The administrator's DSN for the database itself."""
        return make_conninfo(self.server, dbname=self.name)

    @property
    def is_ours(self) -> bool:
        """Whether its tables are for us to make: the input belongs to other teams."""
        return self.database is not Database.INPUT or Purpose.INPUT_WRITER in self.roles

    @contextmanager
    def connect(self, *, read_only: bool = False, lock_seconds: float = LOCK_SECONDS) -> Iterator[Connection]:
        """An administrator's connection to the database itself, as `connect.connect`.

        Tables of an input of other systems are found by the administrator's own search path; ours are in
        `public`.
        """
        with connect(
            self.admin_dsn, read_only=read_only, lock_seconds=lock_seconds, is_ours=self.is_ours
        ) as connection:
            yield connection

    def exists(self) -> bool:
        """Whether its server has it."""
        with connect(self.server, autocommit=True) as server:
            found = server.execute("SELECT FROM pg_database WHERE datname = %s", [self.name])
            return found.fetchone() is not None


def find_targets(
    settings: Settings, dsns: Dsns, databases: Iterable[Database] = tuple(Database)
) -> Iterator[Target]:
    """The databases to administer, in the order given.

    Raises:
        BadSetting: If a DSN that is needed is missing, or those of a database do not agree.
    """
    input_roles = frozenset(
        str(conninfo_to_dict(dsn)["user"])
        for purpose, dsn in dsns.by_purpose.items()
        if purpose.database is Database.INPUT
    )
    for database in databases:
        given = {p: d for p, d in dsns.by_purpose.items() if p.database is database}
        if not given:
            purposes = " or ".join(p.setting for p in Purpose if p.database is database)
            raise BadSetting(f"the {database} database has no DSN", f"set {purposes}")
        parts = {purpose: conninfo_to_dict(dsn) for purpose, dsn in given.items()}
        names = {str(part.get("dbname", "")) for part in parts.values()}
        if len(names) != 1 or "" in names:
            raise BadSetting(
                f"the DSNs of the {database} database name different databases: {sorted(names)}",
                "let them all name the same one",
            )
        yield Target(
            database=database,
            name=names.pop(),
            server=_administrator(settings, dsns, database),
            roles={purpose: str(part["user"]) for purpose, part in parts.items()},
            passwords={purpose: part.get("password") for purpose, part in parts.items()},  # type: ignore[misc]
            input_roles=input_roles,
        )


def _administrator(settings: Settings, dsns: Dsns, database: Database) -> str:
    if dsns.is_embedded:
        return embedded.start(settings.home).dsn(embedded.ADMINISTRATOR, "postgres")
    secret = getattr(settings, f"{database.value}_admin_dsn") or settings.admin_dsn
    if secret is None:
        raise BadSetting(
            "EPISODES_ADMIN_DSN is not set",
            "`episodes db` needs a role that may create roles and databases and owns what it made",
        )
    return str(secret.get_secret_value())


def change_stamp(
    settings: Settings,
    dsns: Dsns,
    databases: Iterable[Database],
    *,
    old: str,
    new: str,
    report: Callable[[str], None],
) -> None:
    """Change the stamps of databases from one environment to another, all or none.

    All are changed before the first is committed. Only if a server goes away between two commits, some are
    changed and others are not; calling it again for the others completes the change.

    Without databases it is all four; then an input database of other systems, which has no stamp, is
    left as it is.

    Args:
        settings: Name the administrators' DSNs.
        dsns: Name the databases.
        databases: Which of them; none stands for all.
        old: What each of them must be stamped with.
        new: What they shall be stamped with.
        report: Called with each change, as one line.

    Raises:
        BadSetting: If a DSN that is needed is missing.
        NotProvisioned: If a database has no stamp.
        WrongEnvironment: If a database is stamped with something else than `old`.
    """
    named = tuple(dict.fromkeys(databases))  # one that is named twice would wait for itself
    targets = list(find_targets(settings, dsns, named or tuple(Database)))
    found = {target.database: _read(target) for target in targets}
    others = [t for t in targets if t.database is Database.INPUT and not named and found[t.database] is None]
    changing = [target for target in targets if target not in others]
    for target in changing:
        stamp = found[target.database]
        if stamp is None:
            raise NotProvisioned(
                f"{describe(target.admin_dsn)} has no environment stamp", "run `episodes db init`"
            )
        if stamp != old:
            raise _not_old(target, stamp, old)
    with ExitStack() as stack:
        # Whatever goes wrong before the block ends rolls all of them back.
        for target in changing:
            admin = stack.enter_context(target.connect())
            if not replace_stamp(admin, old, new):  # changed since it was read
                raise _not_old(target, admission.read_stamp(admin), old)
    for target in changing:
        report(f"{target.database}: stamp of {target.name} changed from {old} to {new}")
    for target in others:
        report(f"{target.database}: {target.name} has no stamp and is left as it is")


def _read(target: Target) -> str | None:
    with target.connect(read_only=True) as admin:
        return admission.read_stamp(admin)


def _not_old(target: Target, stamp: str | None, old: str) -> WrongEnvironment:
    return WrongEnvironment(
        f"{target.database} ({describe(target.admin_dsn)}) is stamped {stamp!r}, not {old!r}, so it was not"
        " changed",
        f"say --from {stamp} if you mean it, or choose databases with --database",
    )

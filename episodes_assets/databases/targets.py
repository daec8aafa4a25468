"""The databases as an administrator meets them: names, servers, and the roles that are to work there."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from episodes_assets.databases import embedded
from episodes_assets.databases.connections import Connection, connect
from episodes_assets.databases.dsns import Dsns
from episodes_assets.databases.lock_waits import LOCK_SECONDS
from episodes_assets.databases.purposes import Database, Purpose
from episodes_assets.errors import BadSetting
from episodes_assets.settings import Settings


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
        """An administrator's connection to the database itself, as `connections.connect`.

        In which schema the tables of other systems are is said by whoever looks, as for the role that reads
        them; what is ours is made in `public`.
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

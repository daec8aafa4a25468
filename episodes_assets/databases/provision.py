"""`episodes db init`: roles, databases, migrations, rights and stamps; as often as you like."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psycopg
from pgqueuer.queries import Queries
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from episodes_assets.algorithms.registry import ALGORITHMS
from episodes_assets.databases import embedded, migrate, stamps
from episodes_assets.databases.connections import Connection, connect, describe
from episodes_assets.databases.consumer_views import create_views
from episodes_assets.databases.dsns import Database, Dsns, Purpose, resolve_dsns
from episodes_assets.databases.grants import grant
from episodes_assets.databases.status import read_status
from episodes_assets.errors import BadSetting, NotProvisioned
from episodes_assets.settings import Settings

Report = Callable[[str], None]


@dataclass(frozen=True)
class _Target:
    """One database to set up."""

    database: Database
    name: str
    server: str  # an administrator's DSN for the server
    roles: Mapping[Purpose, str]
    passwords: Mapping[Purpose, str | None]

    @property
    def admin_dsn(self) -> str:
        return make_conninfo(self.server, dbname=self.name)

    @property
    def is_ours(self) -> bool:
        """Whether its tables are for us to make: the input belongs to other teams."""
        return self.database is not Database.INPUT or Purpose.INPUT_WRITER in self.roles


def ready_databases(settings: Settings, report: Report) -> Dsns:
    """Find the databases; set the embedded ones up when they are not.

    Configured databases are set up by `episodes db init` alone, which needs an administrator.

    Args:
        settings: Say where the databases are.
        report: Is told each step of setting up, as one line; of nothing when all is ready.

    Raises:
        DatabaseUnreachable: If the embedded server does not start.
    """
    dsns = resolve_dsns(settings)
    if dsns.is_embedded and not all(status.is_current for status in read_status(dsns)):
        report(f"Setting up the embedded databases in {settings.home}")
        provision(settings, dsns, lambda step: report(f"  {step}"))
    return dsns


def provision(settings: Settings, dsns: Dsns, report: Report) -> None:
    """Create or upgrade everything in the four databases.

    Two at once do it one after the other.

    Args:
        settings: Says the environment to stamp and the administrators' DSNs.
        dsns: The roles' DSNs; role names, passwords and database names are taken from them.
        report: Is told each step, as one line.

    Raises:
        BadSetting: If a DSN that is needed is missing.
        WrongEnvironment: If a database is already stamped with another environment.
    """
    for target in _targets(settings, dsns):
        with connect(target.server, autocommit=True) as server:
            # Held until the connection closes; on the server's own database, since roles are the server's.
            server.execute("SELECT pg_advisory_lock(hashtext('episodes db init'))")
            _create_roles_and_database(server, target, report)
            _fill(target, settings.environment, report)
        report(f"{target.database}: ready ({', '.join(sorted(target.roles.values()))})")


def _fill(target: _Target, environment: str, report: Report) -> None:
    with connect(target.admin_dsn, autocommit=True) as admin:
        if stamps.read(admin) is not None:
            stamps.verify(admin, environment, describe(target.admin_dsn))
    if target.is_ours:
        _migrate(target, report)
    with connect(target.admin_dsn, autocommit=True) as admin:
        if target.is_ours:
            _stamp(admin, environment)
        if target.database is Database.QUEUE:
            asyncio.run(_install_pgqueuer(target.admin_dsn))
        if target.database is Database.RESULTS:
            create_views(admin, ALGORITHMS)
        _grant(admin, target)


def _targets(settings: Settings, dsns: Dsns) -> Iterator[_Target]:
    for database in Database:
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
        yield _Target(
            database=database,
            name=names.pop(),
            server=_administrator(settings, dsns, database),
            roles={purpose: str(part["user"]) for purpose, part in parts.items()},
            passwords={purpose: part.get("password") for purpose, part in parts.items()},  # type: ignore[misc]
        )


def _administrator(settings: Settings, dsns: Dsns, database: Database) -> str:
    if dsns.is_embedded:
        return embedded.start(settings.home).dsn(embedded.ADMINISTRATOR, "postgres")
    secret = getattr(settings, f"{database.value}_admin_dsn") or settings.admin_dsn
    if secret is None:
        raise BadSetting(
            "EPISODES_ADMIN_DSN is not set",
            "`episodes db init` needs a role that may create roles and databases",
        )
    return str(secret.get_secret_value())


def _create_roles_and_database(server: Connection, target: _Target, report: Report) -> None:
    for purpose, role in target.roles.items():
        exists = server.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
        verb = "ALTER" if exists else "CREATE"
        if not exists:
            report(f"{target.database}: creating role {role}")
        _set_role(server, verb, role, target.passwords[purpose])
    found = server.execute("SELECT FROM pg_database WHERE datname = %s", [target.name]).fetchone()
    if found is None:
        report(f"{target.database}: creating database {target.name}")
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(target.name)))


def _set_role(server: Connection, verb: str, role: str, password: str | None) -> None:
    attributes = sql.SQL(" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
    secret = sql.SQL("") if password is None else sql.SQL(" PASSWORD {}").format(password)
    head = sql.SQL("CREATE ROLE {}") if verb == "CREATE" else sql.SQL("ALTER ROLE {}")
    server.execute(head.format(sql.Identifier(role)) + attributes + secret)


def _migrate(target: _Target, report: Report) -> None:
    before, after = migrate.upgrade(target.database, target.admin_dsn)
    if before != after:
        report(f"{target.database}: migrated from {before or 'nothing'} to {after}")


def _stamp(admin: Connection, environment: str) -> None:
    admin.execute(
        "INSERT INTO environment_stamp (environment) VALUES (%s) ON CONFLICT DO NOTHING",
        [environment],
    )


async def _install_pgqueuer(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        queries = Queries.from_psycopg_connection(connection)
        if await queries.schema_is_installed():
            await queries.upgrade()
        else:
            await queries.install()


def _grant(admin: Connection, target: _Target) -> None:
    try:
        with admin.transaction():
            grant(admin, target.database, target.name, target.roles)
    except psycopg.errors.UndefinedTable as error:
        raise NotProvisioned(
            f"{describe(target.admin_dsn)} has no table `episodes` or `viewings`",
            "the input belongs to other systems; to have the tables made, set EPISODES_INPUT_WRITER_DSN",
        ) from error

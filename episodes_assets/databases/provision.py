"""`episodes db init`: roles, databases, migrations, rights and stamps; as often as you like."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from pgqueuer.queries import Queries
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from episodes_assets.algorithms.registry import ALGORITHMS
from episodes_assets.databases import embedded, stamps
from episodes_assets.databases.connections import Connection, connect, describe
from episodes_assets.databases.consumer_views import create_views
from episodes_assets.databases.dsns import Database, Dsns, Purpose
from episodes_assets.databases.grants import grant
from episodes_assets.errors import BadSetting, NotProvisioned, WrongEnvironment
from episodes_assets.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"

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


def provision(settings: Settings, dsns: Dsns, report: Report) -> None:
    """Create or upgrade everything in the four databases.

    Args:
        settings: Says the environment to stamp and the administrators' DSNs.
        dsns: The roles' DSNs; role names, passwords and database names are taken from them.
        report: Is told each step, as one line.

    Raises:
        BadSetting: If a DSN that is needed is missing.
        WrongEnvironment: If a database is already stamped with another environment.
    """
    for target in _targets(settings, dsns):
        _create_roles_and_database(target, report)
        with connect(target.admin_dsn, autocommit=True) as admin:
            _refuse_other_environment(admin, target, settings.environment)
        if target.is_ours:
            _migrate(target, report)
        with connect(target.admin_dsn, autocommit=True) as admin:
            if target.is_ours:
                _stamp(admin, settings.environment)
            if target.database is Database.QUEUE:
                asyncio.run(_install_pgqueuer(target.admin_dsn))
            if target.database is Database.RESULTS:
                create_views(admin, ALGORITHMS)
            _grant(admin, target)
        report(f"{target.database}: ready ({', '.join(sorted(target.roles.values()))})")


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


def _create_roles_and_database(target: _Target, report: Report) -> None:
    with connect(target.server, autocommit=True) as server:
        for purpose, role in target.roles.items():
            exists = server.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
            verb = "ALTER" if exists else "CREATE"
            if not exists:
                report(f"{target.database}: creating role {role}")
            _set_role(server, verb, role, target.passwords[purpose])
        exists = (
            server.execute("SELECT FROM pg_database WHERE datname = %s", [target.name]).fetchone() is not None
        )
        if not exists:
            report(f"{target.database}: creating database {target.name}")
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(target.name)))


def _set_role(server: Connection, verb: str, role: str, password: str | None) -> None:
    attributes = sql.SQL(" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
    secret = sql.SQL("") if password is None else sql.SQL(" PASSWORD {}").format(password)
    head = sql.SQL("CREATE ROLE {}") if verb == "CREATE" else sql.SQL("ALTER ROLE {}")
    server.execute(head.format(sql.Identifier(role)) + attributes + secret)


def _refuse_other_environment(admin: Connection, target: _Target, environment: str) -> None:
    stamp = stamps.read(admin)
    if stamp not in (None, environment):
        raise WrongEnvironment(
            f"{describe(target.admin_dsn)} belongs to {stamp!r}, this process to {environment!r}",
            "use that environment's own DSNs, or set EPISODES_ENVIRONMENT if you mean this one",
        )


def _migrate(target: _Target, report: Report) -> None:
    before, after = None, None
    with _alembic(target) as (config, connection):
        before = _version(connection)
        command.upgrade(config, "head")
        after = _version(connection)
        connection.commit()
    if before != after:
        report(f"{target.database}: migrated from {before or 'nothing'} to {after}")


class _alembic:  # noqa: N801
    """An Alembic configuration over an administrator's connection."""

    def __init__(self, target: _Target) -> None:
        self._target = target

    def __enter__(self) -> tuple[Config, sqlalchemy.Connection]:
        dsn = self._target.admin_dsn
        self._engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(dsn),
            poolclass=sqlalchemy.NullPool,
        )
        self._connection = self._engine.connect()
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        config.set_main_option("version_locations", str(MIGRATIONS / self._target.database.value))
        config.attributes["connection"] = self._connection
        return config, self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._engine.dispose()


def _version(connection: sqlalchemy.Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("episodes_schema_version"):
        return None
    found = connection.execute(sqlalchemy.text("SELECT version_num FROM episodes_schema_version"))
    return found.scalar()


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

"""Schemas and their migrations: upgrading, the releases that may go on beside one, contracting, downgrading.

Alembic takes a database to the newest version, in a transaction that is the caller's. A migration adds
first (expand): `upgrade` leaves what the releases that it declares in `oldest_beside` still need. What
only they need it removes in `finish`, if it has one (contract), when no process of them lives. With its
version a schema keeps the oldest release that fits it, so that each process can read whether it may go on
(`postgres/admission.py`). Databases, roles and rights are `init`; when a schema is finished is `finish`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from episodes_assets.postgres.admission import MIGRATIONS
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Database
from episodes_assets.postgres.session import PUBLIC


@dataclass(frozen=True)
class Migration:
    """What a migration's module declares.

    Attributes:
        revision: The version that it brings a schema to.
        oldest_beside: The oldest release that may go on beside that, named by the newest version it knows.
        finish: Removes what only releases older than this one need; None if there is nothing to remove.
    """

    revision: str
    oldest_beside: str
    finish: Callable[[], None] | None


@cache
def migrations(database: Database) -> tuple[Migration, ...]:
    """The migrations of a database, the oldest first."""
    scripts = ScriptDirectory.from_config(config(database)).walk_revisions()
    return tuple(
        Migration(script.revision, script.module.oldest_beside, getattr(script.module, "finish", None))
        for script in reversed(list(scripts))
    )


def oldest_beside(database: Database, version: str, finished: str) -> str:
    """The oldest release that may go on beside a schema.

    Args:
        database: Whose schema.
        version: Its version.
        finished: The version up to which it is finished.
    """
    applied = [each for each in migrations(database) if each.revision <= version]
    removed = [each.revision for each in applied if each.finish is not None and each.revision <= finished]
    return max([*(each.oldest_beside for each in applied), *removed])


@dataclass(frozen=True)
class SchemaState:
    """How far a schema is.

    Attributes:
        version: The migration it is at.
        finished: The migration up to which it is finished.
    """

    version: str
    finished: str

    def unfinished(self, database: Database) -> list[Migration]:
        """The migrations that have something left to remove, the oldest first."""
        return [
            each
            for each in migrations(database)
            if self.finished < each.revision <= self.version and each.finish is not None
        ]


_STATE = (
    "SELECT version_num, coalesce(to_jsonb(episodes_schema_version) ->> 'finished', version_num)"
    " FROM public.episodes_schema_version"
)


def read_state(admin: Connection) -> SchemaState:
    """How far the schema of a database is that has been set up."""
    version, finished = admin.execute(_STATE).fetchone() or ("", "")
    return SchemaState(version, finished)


def close_window(admin: Connection, database: Database, state: SchemaState) -> None:
    """Let no release go on any more that needs what is left to be removed."""
    write_window(admin, oldest_beside(database, state.version, state.version))


def open_window(admin: Connection, database: Database, state: SchemaState) -> None:
    """Let those releases go on again, for whom all is there."""
    write_window(admin, oldest_beside(database, state.version, state.finished))


def write_window(admin: Connection, oldest: str) -> None:
    """Record the oldest release that may go on beside a schema."""
    admin.execute("UPDATE public.episodes_schema_version SET oldest_beside = %s", [oldest])


_alembic_lock = threading.Lock()  # Alembic's context is global to the process


@contextmanager
def begin_migrations(admin: Connection, database: Database) -> Iterator[sqlalchemy.Connection]:
    """A transaction for migrations and for whatever else is executed through `admin` meanwhile.

    It commits when the block ends well, and leaves `admin` open. In Dagster's database the search path is
    PostgreSQL's own catalog until `upgrade_within` has ended: a release that let Dagster's role make objects
    in `public` may have left operators there, which an administrator would execute.
    """
    if database is Database.DAGSTER:
        admin.execute("SET search_path = pg_catalog")
        admin.commit()  # SQLAlchemy rolls back what it does when it first sees a connection
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: admin, poolclass=sqlalchemy.StaticPool
    )
    with engine.begin() as connection:
        yield connection


def upgrade_within(connection: sqlalchemy.Connection, database: Database) -> tuple[str | None, str | None]:
    """Migrate a database to its newest version, in a transaction that the caller goes on with.

    A schema that is made from nothing is finished at once, since no process knows it yet.

    Returns:
        The versions before and after; before is None for a database without any.

    Raises:
        psycopg.Error: If a migration fails.
    """
    before = _version(connection)
    try:
        with _alembic_lock:
            command.upgrade(config(database, connection), "head")
        after = _version(connection)
        if before is None:
            _finish(connection, [each for each in migrations(database) if each.finish is not None])
        _record(connection, database, finished=before or after)
    except sqlalchemy.exc.DBAPIError as error:
        # The driver's own error, which the caller's connection explains.
        raise (error.orig or error) from error
    if database is Database.DAGSTER:
        connection.exec_driver_sql(f"SET search_path = {PUBLIC}")
    return before, after


def finish_within(connection: sqlalchemy.Connection, database: Database, state: SchemaState) -> None:
    """Remove what only older releases need, in a transaction that the caller goes on with.

    Raises:
        psycopg.Error: If a migration fails.
    """
    try:
        _finish(connection, state.unfinished(database))
        connection.execute(
            sqlalchemy.text("UPDATE public.episodes_schema_version SET finished = version_num")
        )
    except sqlalchemy.exc.DBAPIError as error:
        raise (error.orig or error) from error


def _finish(connection: sqlalchemy.Connection, unfinished: list[Migration]) -> None:
    if not unfinished:
        return
    with _alembic_lock, Operations.context(MigrationContext.configure(connection)):
        for each in unfinished:
            assert each.finish is not None  # noqa: S101  as they were chosen
            each.finish()


def _record(connection: sqlalchemy.Connection, database: Database, finished: str | None) -> None:
    """Record beside the version which releases may go on; how far it is finished, where that is not known."""
    columns = {
        column["name"] for column in sqlalchemy.inspect(connection).get_columns(_TABLE, schema="public")
    }
    if "oldest_beside" not in columns:  # it would keep out all that look at the version meanwhile
        connection.exec_driver_sql(
            f"ALTER TABLE public.{_TABLE} ADD COLUMN oldest_beside text, ADD COLUMN finished text"
        )
    found = connection.execute(
        sqlalchemy.text(
            f"UPDATE public.{_TABLE} SET finished = least(coalesce(finished, :finished), version_num)"  # noqa: S608
            " RETURNING version_num, finished"
        ),
        {"finished": finished},
    ).one()
    connection.execute(
        sqlalchemy.text(f"UPDATE public.{_TABLE} SET oldest_beside = :oldest"),  # noqa: S608
        {"oldest": oldest_beside(database, *found)},
    )


def downgrade(database: Database, admin_dsn: str, version: str) -> None:
    """Bring a database back to an older version."""
    with (
        connect(admin_dsn, is_ours=database is not Database.INPUT) as admin,
        begin_migrations(admin, database) as connection,
    ):
        _version(connection)
        with _alembic_lock:
            command.downgrade(config(database, connection), version)
        if _version(connection) is not None:
            _record(connection, database, finished=version)


def config(database: Database, connection: sqlalchemy.Connection | None = None) -> Config:
    """Alembic's configuration: where the migrations of a database are, and the transaction to run them in."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    made.set_main_option("path_separator", "os")
    made.set_main_option("version_locations", str(MIGRATIONS / database.value))
    # In a transaction that has begun, Alembic does not commit.
    made.attributes["connection"] = connection
    return made


_TABLE = "episodes_schema_version"


def _version(connection: sqlalchemy.Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table(_TABLE, schema="public"):
        return None
    found = connection.execute(sqlalchemy.text("SELECT version_num FROM public.episodes_schema_version"))
    return found.scalar()

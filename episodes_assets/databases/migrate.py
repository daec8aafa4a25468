"""Alembic over one of the four databases: how it gets to the newest version, or back to an older one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from alembic import command
from alembic.config import Config

from episodes_assets.databases.connections import Connection, connect
from episodes_assets.databases.purposes import Database
from episodes_assets.databases.session_settings import PUBLIC
from episodes_assets.databases.versions import MIGRATIONS

_one_at_a_time = threading.Lock()  # Alembic keeps what it is at in a module


@contextmanager
def begin(admin: Connection, database: Database) -> Iterator[sqlalchemy.Connection]:
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
    """Bring a database to its newest version in a transaction that others go on with.

    Returns:
        The versions before and after; before is None for a database without any.

    Raises:
        psycopg.Error: If a migration fails.
    """
    before = _version(connection)
    try:
        with _one_at_a_time:
            command.upgrade(_config(database, connection), "head")
    except sqlalchemy.exc.DBAPIError as error:
        # Whoever made the connection knows the driver's errors.
        raise (error.orig or error) from error
    after = _version(connection)
    if database is Database.DAGSTER:
        connection.exec_driver_sql(f"SET search_path = {PUBLIC}")
    return before, after


def downgrade(database: Database, admin_dsn: str, version: str) -> None:
    """Bring a database back to an older version."""
    with (
        connect(admin_dsn, is_ours=database is not Database.INPUT) as admin,
        begin(admin, database) as connection,
    ):
        _version(connection)
        with _one_at_a_time:
            command.downgrade(_config(database, connection), version)


def _config(database: Database, connection: sqlalchemy.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", str(MIGRATIONS / database.value))
    # Alembic leaves the commit of a transaction that has begun to whoever began it.
    config.attributes["connection"] = connection
    return config


def _version(connection: sqlalchemy.Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("episodes_schema_version", schema="public"):
        return None
    found = connection.execute(sqlalchemy.text("SELECT version_num FROM public.episodes_schema_version"))
    return found.scalar()

"""Alembic over one of the four databases: which version it is at, and how it gets to the newest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from episodes_assets.databases.dsns import Database

_MIGRATIONS = Path(__file__).parent / "migrations"


def latest_version(database: Database) -> str:
    """The newest migration of a database."""
    return ScriptDirectory.from_config(_config(database)).get_current_head() or ""


def upgrade(database: Database, admin_dsn: str) -> tuple[str | None, str | None]:
    """Bring a database to its newest version.

    Returns:
        The versions before and after; before is None for a database without any.
    """
    with _connected(database, admin_dsn) as (config, connection):
        before = _version(connection)
        command.upgrade(config, "head")
        return before, _version(connection)


def downgrade(database: Database, admin_dsn: str, version: str) -> None:
    """Bring a database back to an older version."""
    with _connected(database, admin_dsn) as (config, _):
        command.downgrade(config, version)


def _config(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", str(_MIGRATIONS / database.value))
    return config


@contextmanager
def _connected(database: Database, admin_dsn: str) -> Iterator[tuple[Config, sqlalchemy.Connection]]:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(admin_dsn), poolclass=sqlalchemy.NullPool
    )
    config = _config(database)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        yield config, connection
        connection.commit()


def _version(connection: sqlalchemy.Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("episodes_schema_version"):
        return None
    found = connection.execute(sqlalchemy.text("SELECT version_num FROM episodes_schema_version"))
    return found.scalar()

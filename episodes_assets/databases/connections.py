"""Connections to PostgreSQL, and the plain errors for those that cannot be made."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from episodes_assets.databases import stamps
from episodes_assets.errors import BadSetting, DatabaseUnreachable, NotProvisioned

CONNECT_TIMEOUT_SECONDS = 10

Connection = psycopg.Connection[Any]


def describe(dsn: str) -> str:
    """A DSN without its password, for messages: `user@host:port/database`.

    Raises:
        BadSetting: If it is not a libpq URL or connection string.
    """
    parts = _parse(dsn)
    host = parts.get("host") or "localhost"
    port = f":{parts['port']}" if "port" in parts else ""
    return f"{parts.get('user', '')}@{host}{port}/{parts.get('dbname', '')}"


@contextmanager
def connect(dsn: str, *, read_only: bool = False, autocommit: bool = False) -> Iterator[Connection]:
    """A connection that commits when the block ends well and rolls back when it does not.

    Raises:
        BadSetting: If the DSN cannot be read.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
        NotProvisioned: If a table that the block uses does not exist.
    """
    connection = _open(dsn, read_only=read_only, autocommit=autocommit)
    try:
        with connection:
            yield connection
    except psycopg.OperationalError as error:
        if connection.broken:
            raise _unreachable(dsn, error) from error
        raise
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise NotProvisioned(
            f"{describe(dsn)} lacks a table ({error.diag.message_primary})",
            "run `episodes db init`",
        ) from error


@contextmanager
def connect_to_write(dsn: str, environment: str, *, autocommit: bool = False) -> Iterator[Connection]:
    """A connection to one of our own databases, after a look at its stamp.

    Raises:
        WrongEnvironment: If the database belongs to another environment.
        NotProvisioned: If it has no stamp.
    """
    with connect(dsn, autocommit=autocommit) as connection:
        stamps.verify(connection, environment, describe(dsn))
        yield connection


@contextmanager
def connect_arrow(dsn: str) -> Iterator[adbc.Connection]:
    """A connection that moves whole columns as Arrow.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
    """
    try:
        connection = adbc.connect(dsn)
    except adbc_driver_manager.Error as error:
        raise _unreachable(dsn, error) from error
    try:
        with connection:
            yield connection
    except adbc_driver_manager.OperationalError as error:
        raise _unreachable(dsn, error) from error


@contextmanager
def kept_arrow_connection(dsn: str) -> Iterator[adbc.Connection]:
    """A read-only connection as of `connect_arrow` that this process keeps for the next block.

    Making one costs more than many a read. It is dropped when a block fails.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
    """
    connection = _KEPT.pop(dsn, None)
    if connection is None:
        try:
            connection = adbc.connect(_read_only(dsn), autocommit=True)
        except adbc_driver_manager.Error as error:
            raise _unreachable(dsn, error) from error
    try:
        yield connection
    except BaseException as error:
        connection.close()
        if isinstance(error, adbc_driver_manager.OperationalError):
            raise _unreachable(dsn, error) from error
        raise
    _KEPT[dsn] = connection


_KEPT: dict[str, adbc.Connection] = {}


def _read_only(dsn: str) -> str:
    """A DSN whose sessions cannot write and sort a day's drop in memory."""
    own = _parse(dsn).get("options", "")
    return make_conninfo(dsn, options=f"{own} -c default_transaction_read_only=on -c work_mem=256MB")


def read_arrow(dsn: str, query: LiteralString, parameters: Sequence[object] = ()) -> pa.Table:
    """Read a query's whole result as Arrow columns in a read-only transaction.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    with connect_arrow(_read_only(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(query, tuple(parameters) or None)
        return cursor.fetch_arrow_table()


def _open(dsn: str, *, read_only: bool, autocommit: bool) -> Connection:
    parts = _parse(dsn)
    try:
        connection = psycopg.connect(
            dsn,
            autocommit=autocommit,
            connect_timeout=int(str(parts.get("connect_timeout", CONNECT_TIMEOUT_SECONDS))),
            application_name=str(parts.get("application_name", "episodes")),
        )
    except psycopg.OperationalError as error:
        raise _unreachable(dsn, error) from error
    connection.read_only = read_only
    return connection


def _parse(dsn: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError as error:
        raise BadSetting(
            f"a DSN cannot be read ({str(error).strip()})",
            "spell it postgresql://user:password@host:5432/database",
        ) from error


def _unreachable(dsn: str, error: Exception) -> DatabaseUnreachable:
    lines = [line.strip() for line in str(error).splitlines()]
    reason = next(line for line in reversed(lines) if line and not line.startswith(". SQLSTATE"))
    return DatabaseUnreachable(
        f"cannot reach {describe(dsn)} ({reason})",
        "check the DSN, that the server is up, and that `episodes db init` has been run",
    )

"""Connections to the four databases: opened, admitted to or refused, with errors that name the server.

A connection is for writing or for reading only. Before it is handed out, the session is pinned (`session`)
and the database's stamp and schema version are checked (`admission`), in as few round trips as possible. No
statement on what the databases hold is here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from episodes_assets import failures
from episodes_assets.errors import BadSetting, EpisodesError, NotProvisioned, SystemFailure
from episodes_assets.postgres import admission, hosts
from episodes_assets.postgres.databases import Database
from episodes_assets.postgres.locks import LOCK_SECONDS, LockWatch, lock_settings
from episodes_assets.postgres.session import SessionKind, pin

CONNECT_TIMEOUT_SECONDS = 10
Connection = psycopg.Connection[Any]


def describe(dsn: str) -> str:
    """A DSN without its password, for messages: `user@host:port/database`.

    Raises:
        BadSetting: If it is not a libpq URL or connection string, or names an invalid host or port: a
            password that is not percent-encoded ends up there.
    """
    parts = _parse(dsn)
    hosts.hosts_of_parts("a DSN", parts)
    host = parts.get("host") or "localhost"
    port = f":{parts['port']}" if "port" in parts else ""
    return f"{parts.get('user', '')}@{host}{port}/{parts.get('dbname', '')}"


@contextmanager
def connect(
    dsn: str,
    *,
    read_only: bool = False,
    autocommit: bool = False,
    lock_seconds: float = LOCK_SECONDS,
    is_ours: bool = True,
) -> Iterator[Connection]:
    """A connection that commits when the block ends well and rolls back when it does not.

    Args:
        dsn: Where to.
        read_only: Whether its transactions cannot write.
        autocommit: Whether each statement is a transaction of its own.
        lock_seconds: How long it waits for a lock.
        is_ours: Whether the tables are ours: then search path and planner settings are pinned as well.

    Raises:
        BadSetting: If the DSN cannot be read.
        LockHeld: If a lock is not acquired in time; the message names the holder.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
        NotProvisioned: If a table that the block uses does not exist.
        SystemFailure: If the server cannot do what the block asks or refuses it: a full disk, a missing
            right, a timeout and the like.
    """
    connection = _open(dsn, lock_seconds=lock_seconds, is_ours=is_ours)
    connection.autocommit = autocommit
    connection.read_only = read_only
    watch = LockWatch(dsn, connection)
    try:
        with watch, connection:
            yield connection
    except psycopg.errors.LockNotAvailable as error:
        held = watch.explain(describe(dsn))
        if held is None:  # it may be an error of another connection that is used inside the block
            raise
        raise held from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise NotProvisioned(
            f"{describe(dsn)} lacks a table ({error.diag.message_primary})",
            "run `episodes db init`" if is_ours else "have it made, or let the role's search_path lead to it",
        ) from error
    except psycopg.Error as error:
        if (cause := cause_of(dsn, error, is_broken=connection.broken)) is None:
            raise
        raise cause from error


@contextmanager
def connect_to_write(
    dsn: str, database: Database, environment: str, *, autocommit: bool = False
) -> Iterator[Connection]:
    """A connection that may write, after checking the database's stamp and version.

    Raises:
        WrongEnvironment: If the database belongs to another environment.
        SchemaTooOld: If its schema is of an older release.
        SchemaTooNew: If its schema is of a newer release.
        NotProvisioned: If it has no stamp.
        BadSetting: If the DSN cannot be read, or leads to another one of the four databases.
        DatabaseUnreachable: If no connection can be made.
    """
    with connect(dsn, autocommit=autocommit, is_ours=database is not Database.INPUT) as connection:
        admission.verify_admission(connection, database, environment, describe(dsn))
        yield connection


@contextmanager
def connect_to_read(dsn: str, database: Database) -> Iterator[Connection]:
    """A connection that cannot write, to one of our own databases, of whatever environment.

    It is in autocommit mode, so that it holds no transaction open between two statements; each sees what
    others have committed by then.

    Raises:
        SchemaTooOld: If its schema is of an older release, where the role may see that.
        SchemaTooNew: If its schema is of a newer release, where the role may see that.
        NotProvisioned: If it has no schema.
        BadSetting: If the DSN cannot be read, or leads to another one of the four databases.
        DatabaseUnreachable: If no connection can be made.
    """
    with connect(dsn, read_only=True, autocommit=True) as connection:
        # psycopg's own read_only counts for transactions that are begun, not for a statement by itself.
        connection.execute("SET default_transaction_read_only = on")
        admission.verify_version(connection, database, describe(dsn))
        yield connection


@contextmanager
def connect_to_input(dsn: str) -> Iterator[Connection]:
    """A connection that cannot write, to the input, whose tables belong to other teams.

    Raises:
        BadSetting: If the DSN cannot be read.
        DatabaseUnreachable: If no connection can be made.
    """
    with connect(dsn, read_only=True, is_ours=False) as connection:
        yield connection


@contextmanager
def one_snapshot(connection: Connection) -> Iterator[None]:
    """Run the block's reads in one read-only transaction of the isolation level repeatable read.

    They all see what others have committed when the first of them begins.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SET LOCAL datestyle = 'ISO'")  # in which COPY writes dates
        yield


def _open(dsn: str, *, lock_seconds: float, is_ours: bool) -> Connection:
    parts = _parse(dsn)
    try:
        connection = psycopg.connect(
            dsn,
            autocommit=True,
            connect_timeout=int(str(parts.get("connect_timeout", CONNECT_TIMEOUT_SECONDS))),
            application_name=str(parts.get("application_name", "episodes")),
        )
        kind = SessionKind.OURS if is_ours else SessionKind.INPUT
        pin(connection, kind, lock_settings(lock_seconds))
    except psycopg.OperationalError as error:
        raise unreachable(dsn, error) from error
    return connection


def _parse(dsn: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError as error:
        raise BadSetting(
            "a DSN cannot be read",  # libpq's reason may repeat it, with its password
            "spell it postgresql://user:password@host:5432/database",
        ) from error


def unreachable(dsn: str, error: Exception) -> SystemFailure:
    """The error for a database that cannot be reached, or not any more: the cause, with its hint."""
    return failures.explain_connection(error, describe(dsn))


def cause_of(dsn: str, error: psycopg.Error, *, is_broken: bool) -> EpisodesError | None:
    """The error for a failed statement if the server is the cause; None if the statement is.

    Args:
        dsn: The database.
        error: What psycopg raised.
        is_broken: Whether the connection is lost with it.
    """
    return unreachable(dsn, error) if is_broken else failures.explain(error, describe(dsn))


AsyncConnection = psycopg.AsyncConnection[Any]

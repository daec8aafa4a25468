"""Whole columns from and to PostgreSQL as Arrow, through ADBC.

Besides reading and writing, this looks after settings that act while ADBC connects, before ours are pinned.
The driver reads the names of all types then: where `quote_all_identifiers` is on, it knows none of them,
and all columns are bytes to it. And what a server says at debug levels is written on stderr by libpq, past
all that protects a terminal. So both are looked at by another driver first, and are set by `options=` where
they are not as they should be. Not otherwise: poolers refuse `options=`. Statements that need no Arrow use
`connect`.
"""

import copyreg
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, LiteralString

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from episodes_assets import failures
from episodes_assets.errors import DatabaseUnreachable, StatementFailed
from episodes_assets.postgres import session
from episodes_assets.postgres.connect import connect, describe, unreachable
from episodes_assets.postgres.session import READ_ONLY, SessionKind

# Of each setting the value to set, and the values that are left as they are.
_WANTED = {
    "quote_all_identifiers": ("off", {"off"}),
    "client_min_messages": ("error", {"info", "notice", "warning", "error"}),
}


def with_startup_options(dsn: str) -> str:
    """The DSN for ADBC, with `options` for those settings that are set otherwise from outside.

    Raises:
        BadSetting: If the DSN cannot be read.
        DatabaseUnreachable: If the server does not answer or refuses.
    """
    with connect(dsn, read_only=True, is_ours=False) as connection:
        # `reset_val` is what a session began with, whatever it has set since.
        found: dict[str, str] = dict(
            connection.execute(
                "SELECT name, reset_val FROM pg_catalog.pg_settings WHERE name = ANY (%s)", [list(_WANTED)]
            ).fetchall()
        )
    changes = [f"-c {name}={wanted}" for name, (wanted, do) in _WANTED.items() if found.get(name) not in do]
    if not changes:
        return dsn
    given = str(conninfo_to_dict(dsn).get("options") or os.environ.get("PGOPTIONS", ""))
    return make_conninfo(dsn, options=" ".join([given, *changes]).strip())


# Memory to sort a day's drop of 1.4 million rows without files, and a hint that its rows are cheap to hand
# from process to process, so that it is sorted in parallel.
_READER_SETTINGS = {**READ_ONLY, "work_mem": "256MB", "parallel_tuple_cost": "0.01"}
_TRANSACTION_FAILED = "25P02"
_pool: dict[tuple[str, bool], adbc.Connection] = {}


def _reduce(error: Any) -> tuple[Callable[[str], Any], tuple[str]]:  # noqa: ANN401
    state = {name: getattr(error, name) for name in ("status_code", "vendor_code", "sqlstate", "details")}
    kind: Callable[..., Any] = type(error)
    return partial(kind, **state), (str(error),)


# By themselves, these errors cannot be pickled: one that the compute process raises would look like a crash.
for _kind in vars(adbc_driver_manager).values():
    if isinstance(_kind, type) and issubclass(_kind, adbc_driver_manager.Error):
        copyreg.pickle(_kind, _reduce)


@contextmanager
def connect_arrow(dsn: str) -> Iterator[adbc.Connection]:
    """A connection for writing whole columns to the input, in a transaction.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
        SystemFailure: If it has no room left: a full disk, no memory.
    """
    connection = _connect(dsn, session.statement(SessionKind.INPUT), autocommit=False)
    try:
        with connection:
            yield connection
    except adbc_driver_manager.Error as error:
        if _is_outage(error):
            raise unreachable(dsn, error) from error
        raise


@contextmanager
def stream_arrow(
    dsn: str, query: LiteralString, *, is_ours: bool = True, **values: object
) -> Iterator[pa.RecordBatchReader]:
    """Read a query's result batch by batch, in a session that cannot write.

    The connection is kept for the process's next read, as connecting often takes longer than reading.

    Args:
        dsn: The database.
        query: Names its parameters in braces.
        is_ours: Whether the tables are ours: then search path and planner settings are pinned as well.
        values: The parameters, which psycopg quotes. ADBC must not bind them: the driver streams only
            statements without parameters, by COPY, and holds the whole result of others in memory.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
        StatementFailed: If a row, such as one that a view converts, ends the statement between two batches.
        SystemFailure: If it has no room left: a full disk, no memory.
    """
    with _pooled(dsn, is_ours=is_ours) as connection, _streamed(connection, query, values) as batches:
        yield batches


@dataclass(frozen=True)
class RepeatableRead:
    """A transaction in which all reads see what was committed at its beginning."""

    _connection: adbc.Connection

    @contextmanager
    def stream(self, query: LiteralString, **values: object) -> Iterator[pa.RecordBatchReader]:
        """Read a query's result batch by batch, as `stream_arrow`; one at a time."""
        with _streamed(self._connection, query, values) as batches:
            yield batches

    def read(self, query: LiteralString, **values: object) -> pa.Table:
        """Read a query's whole result."""
        with self.stream(query, **values) as batches:
            return batches.read_all()

    def keep_alive(self) -> None:
        """Begin the session's idle limit anew, by a statement that reads nothing."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()


@contextmanager
def repeatable_read(dsn: str, *, is_ours: bool = False) -> Iterator[RepeatableRead]:
    """A read-only transaction, of the isolation level repeatable read.

    Args:
        dsn: The database.
        is_ours: Whether the tables are ours, not the input's: as for `stream_arrow`.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
        StatementFailed: As `stream_arrow`.
        SystemFailure: If it has no room left: a full disk, no memory.
    """
    with _pooled(dsn, is_ours=is_ours) as connection:
        _execute(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield RepeatableRead(connection)
        _execute(connection, "COMMIT")


# The server has other work to do: no parallel workers, little memory for each statement, and no transaction
# that stays open for long.
_BOUNDED_SETTINGS = {
    **READ_ONLY,
    "max_parallel_workers_per_gather": "0",
    "work_mem": "64MB",
    "statement_timeout": "10min",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10min",
}


@contextmanager
def bounded_session(dsn: str, application: str) -> Iterator[RepeatableRead]:
    """A read-only transaction, of the isolation level repeatable read, in a session of its own.

    For databases of ours whose server has other work to do: each statement is limited in time and memory and
    runs without parallel workers, and the session ends with the block. The server ends it as well once it has
    been idle for ten minutes: while something else takes longer, call `keep_alive`.

    Args:
        dsn: The database.
        application: The session's `application_name`.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
        StatementFailed: As `stream_arrow`.
        SystemFailure: If it has no room left: a full disk, no memory.
    """
    named = make_conninfo(dsn, application_name=application)
    connection = _connect(named, session.statement(SessionKind.OURS, _BOUNDED_SETTINGS), autocommit=True)
    with _closed_on_error(dsn, connection):
        _execute(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield RepeatableRead(connection)
        _execute(connection, "COMMIT")
    connection.close()


@contextmanager
def _pooled(dsn: str, *, is_ours: bool) -> Iterator[adbc.Connection]:
    """The process's pooled connection to a database, or a new one while that is in use."""
    connection = _pool.pop((dsn, is_ours), None)
    if connection is not None and not _is_alive(connection):
        connection = None
    connection = connection or _connect_to_read(dsn, is_ours=is_ours)
    with _closed_on_error(dsn, connection):
        yield connection
    if _pool.setdefault((dsn, is_ours), connection) is not connection:  # another thread's read ended first
        connection.close()


def _execute(connection: adbc.Connection, statement: LiteralString) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def _streamed(
    connection: adbc.Connection, query: LiteralString, values: Mapping[str, object]
) -> Iterator[pa.RecordBatchReader]:
    statement = sql.SQL(query).format(**{name: sql.Literal(value) for name, value in values.items()})
    with connection.cursor() as cursor:
        cursor.execute(statement.as_string(None))
        yield cursor.fetch_record_batch()


@contextmanager
def _closed_on_error(dsn: str, connection: adbc.Connection) -> Iterator[None]:
    """Close a connection in which something failed, and say why."""
    try:
        yield
    except BaseException as error:
        failed = _is_between_batches(error) and failures.explain(error) is None and _is_alive(connection)
        connection.close()
        if failed:
            raise StatementFailed(
                f"{describe(dsn)} cannot give all rows ({failures.reason(error)})",
                "have that row, or the view that converts it, corrected",
            ) from error
        if isinstance(error, Exception) and _is_outage(error):
            raise unreachable(dsn, error) from error
        raise


def read_arrow(dsn: str, query: LiteralString, *, is_ours: bool = True, **values: object) -> pa.Table:
    """Read a query's whole result, as `stream_arrow`."""
    with stream_arrow(dsn, query, is_ours=is_ours, **values) as batches:
        return batches.read_all()


def _is_alive(connection: adbc.Connection) -> bool:
    """Whether a pooled connection still works: the server may have restarted or closed it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except adbc_driver_manager.Error as error:
        if error.sqlstate == _TRANSACTION_FAILED:
            return True
        connection.close()
        return False
    return True


def _is_between_batches(error: BaseException) -> bool:
    """Whether an error ended Arrow's stream: it has no SQLSTATE, and the session may be alive or not."""
    return isinstance(error, OSError) and "libpq" in str(error)


def _is_outage(error: BaseException) -> bool:
    """Whether the server went away or has no room left, rather than refused the statement."""
    if _is_between_batches(error):
        return True
    if not isinstance(error, adbc_driver_manager.Error):
        return False
    if not error.sqlstate:
        return isinstance(error, adbc_driver_manager.OperationalError)
    return error.sqlstate.startswith(("08", "53", "57P"))


def _connect_to_read(dsn: str, *, is_ours: bool) -> adbc.Connection:
    kind = SessionKind.OURS if is_ours else SessionKind.INPUT
    return _connect(dsn, session.statement(kind, _READER_SETTINGS), autocommit=True)


def _connect(dsn: str, settings: str, *, autocommit: bool) -> adbc.Connection:
    started = with_startup_options(dsn)
    try:
        try:
            connection = adbc.connect(started, autocommit=autocommit)
        except adbc_driver_manager.Error as error:
            if started == dsn or "startup parameter" not in str(error):
                raise
            connection = adbc.connect(dsn, autocommit=autocommit)  # a pooler is in between
    except adbc_driver_manager.Error as error:
        raise unreachable(dsn, error) from error
    try:
        with connection.cursor() as cursor:
            cursor.execute(settings)
            if isinstance((cursor.fetchone() or ("",))[0], bytes):
                connection.close()
                raise DatabaseUnreachable(
                    f"{describe(dsn)} does not show the Arrow driver the names of its types",
                    "let quote_all_identifiers be off, and search_path not name pg_catalog, for this role,"
                    " this database and in PGOPTIONS",
                )
        if not autocommit:
            connection.commit()
    except adbc_driver_manager.Error as error:
        connection.close()
        raise unreachable(dsn, error) from error
    return connection

"""A pool of connections to the accounts' database, for threads and for the event loop.

From the event loop each call runs in one of a few threads. The statements are in the other modules.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import anyio
import psycopg
from anyio import CapacityLimiter, to_thread
from psycopg_pool import ConnectionPool, PoolTimeout

from episodes_assets.errors import DatabaseUnreachable, EpisodesError
from episodes_assets.postgres import admission, connect
from episodes_assets.postgres.databases import Database
from episodes_assets.postgres.locks import LockWatch, lock_settings
from episodes_assets.postgres.session import SessionKind, pin

SIZE = 8
WAIT_SECONDS = 10.0
# Longer than any transaction on the accounts; a browser waits for it.
LOCK_SECONDS = 15.0
# The pool's backoff ends after this time, so that the next request connects anew; shorter than WAIT_SECONDS,
# so that a server that is back is noticed while requests still wait.
_RECONNECT_SECONDS = 4.0
# A connection of this age is replaced, and the database's stamp checked again.
_LIFETIME_SECONDS = 600.0


class AccountsPool:
    """Connections to the accounts for many threads.

    Each is checked before use, so a restart of the server fails only the statements that are running. While
    the server is away, callers wait for it up to `WAIT_SECONDS`.

    Args:
        dsn: Of `Purpose.DASHBOARD`.
        environment: This process's own; another's database is refused.

    Raises:
        WrongEnvironment: If the database belongs to another environment.
        SchemaTooOld: If its schema is of an older release.
        SchemaTooNew: If its schema is of a newer release.
        NotProvisioned: If it has no stamp.
        BadSetting: If the DSN cannot be read, or leads to another database.
        DatabaseUnreachable: If no connection can be made.
    """

    def __init__(self, dsn: str, environment: str) -> None:
        self._dsn = dsn
        self._environment = environment
        self._refusal: Exception | None = None
        # The pool connects in threads of its own, where an error would only be logged; here it is raised.
        with connect.connect_to_write(dsn, Database.DAGSTER, environment):
            pass
        self._pool = ConnectionPool(
            dsn,
            min_size=1,
            max_size=SIZE,
            timeout=WAIT_SECONDS,
            max_lifetime=_LIFETIME_SECONDS,
            reconnect_timeout=_RECONNECT_SECONDS,
            kwargs={
                "autocommit": True,
                "connect_timeout": connect.CONNECT_TIMEOUT_SECONDS,
                "application_name": "episodes dashboard",
            },
            configure=self._admit,
            check=ConnectionPool.check_connection,
            open=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; `connection` fails afterwards."""
        self._pool.close()

    @contextmanager
    def connection(self) -> Iterator[connect.Connection]:
        """A connection for the block's exclusive use; each statement commits by itself.

        Raises:
            DatabaseUnreachable: If none can be made, or it breaks inside the block.
            LockHeld: If a lock is not acquired in time; the message names the holder.
            SystemFailure: If the server cannot do what the block asks or refuses it.
            EpisodesError: If the database now belongs to another environment or release.
        """
        try:
            connection = self._pool.getconn()
        except PoolTimeout as error:
            if isinstance(self._refusal, EpisodesError):
                raise self._refusal from error
            raise connect.unreachable(self._dsn, self._refusal or error) from error
        watch = LockWatch(self._dsn, connection)
        try:
            with watch:
                yield connection
        except psycopg.Error as error:
            is_lock = isinstance(error, psycopg.errors.LockNotAvailable)
            held = watch.explain(connect.describe(self._dsn)) if is_lock else None
            cause = held or connect.cause_of(self._dsn, error, is_broken=connection.broken)
            if cause is None:
                raise
            raise cause from error
        finally:
            self._pool.putconn(connection)

    def silent(self, seconds: float) -> DatabaseUnreachable:
        """The error for a server that has not answered for so long."""
        return DatabaseUnreachable(
            f"{connect.describe(self._dsn)} has not answered within {seconds:g} s",
            "see whether the database server runs, and what it is busy with",
        )

    def _admit(self, connection: connect.Connection) -> None:
        """Set up a new connection and check the database's stamp, as `connect_to_write` does."""
        self._refusal = None
        try:
            pin(connection, SessionKind.OURS, lock_settings(LOCK_SECONDS))
            admission.verify_admission(
                connection, Database.DAGSTER, self._environment, connect.describe(self._dsn)
            )
        except Exception as error:
            self._refusal = error
            raise


# Threads of their own (a bulkhead): slow queries of Dagster's may fill Starlette's, and logins must not wait.
THREADS = 8
# So many more may wait for a silent database when nobody waits for them any more.
ABANDONED_THREADS = 8
# The errors of a database that cannot be used; psycopg_pool's time-out is an OperationalError.
AWAY = (psycopg.OperationalError, EpisodesError)
P = ParamSpec("P")
T = TypeVar("T")


class AccountsAccess:
    """Runs functions of `accounts/` without keeping the event loop waiting."""

    def __init__(self, pool: AccountsPool) -> None:
        self._pool = pool
        self._limiter = CapacityLimiter(THREADS)
        self._limited = threading.Semaphore(THREADS + ABANDONED_THREADS)

    def ping(self) -> None:
        """Check in this thread that the database answers.

        Raises:
            psycopg.OperationalError: If it does not.
            EpisodesError: If it belongs to another environment or release.
        """
        with self._pool.connection() as connection:
            connection.execute("SELECT 1")

    async def run(
        self, function: Callable[Concatenate[connect.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function with a connection before its other arguments.

        Raises:
            psycopg.OperationalError: If the database does not answer.
            EpisodesError: If it belongs to another environment or release.
        """

        def work() -> T:
            with self._pool.connection() as connection:
                return function(connection, *args, **kwargs)

        return await to_thread.run_sync(work, limiter=self._limiter)

    async def run_within(
        self,
        seconds: float,
        function: Callable[Concatenate[connect.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like `run`, for so long at most, whether the database refuses connections or is silent.

        The thread of a call that took longer is left to itself, until the database answers.

        Raises:
            psycopg.OperationalError: If the database does not answer.
            EpisodesError: If it does not answer in time, or belongs to another environment or release.
        """

        def work() -> T:
            if not self._limited.acquire(blocking=False):
                raise TimeoutError
            try:
                with self._pool.connection() as connection:
                    return function(connection, *args, **kwargs)
            finally:
                self._limited.release()

        try:
            with anyio.fail_after(seconds):
                return await to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        except TimeoutError as error:
            raise self._pool.silent(seconds) from error

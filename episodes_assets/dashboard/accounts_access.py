"""The accounts' database for the event loop: each call in a thread of its own few."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import psycopg
from anyio import CapacityLimiter, to_thread

from episodes_assets.accounts.pool import AccountsPool
from episodes_assets.errors import EpisodesError
from episodes_assets.postgres.connect import Connection

# Slow queries of Dagster's fill Starlette's own threads; nobody's login waits behind them.
THREADS = 8

# What a database that is away looks like; psycopg_pool's time-out is an OperationalError.
AWAY = (psycopg.OperationalError, EpisodesError)

P = ParamSpec("P")
T = TypeVar("T")


class AccountsAccess:
    """Runs functions of `accounts/` without keeping the event loop waiting."""

    def __init__(self, pool: AccountsPool) -> None:
        self._pool = pool
        self._limiter = CapacityLimiter(THREADS)

    def ping(self) -> None:
        """Ask the database whether it is there, in this thread.

        Raises:
            psycopg.OperationalError: If it is away.
            EpisodesError: If it is not ours to use.
        """
        with self._pool.connection() as connection:
            connection.execute("SELECT 1")

    async def run(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function with a connection before its other arguments.

        Raises:
            psycopg.OperationalError: If the database is away.
            EpisodesError: If it is not ours to use.
        """

        def work() -> T:
            with self._pool.connection() as connection:
                return function(connection, *args, **kwargs)

        return await to_thread.run_sync(work, limiter=self._limiter)

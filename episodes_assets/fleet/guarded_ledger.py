"""A worker's connection to the ledger: given up when it is silent, left when it is no longer its own."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import psycopg

from episodes_assets.errors import DatabaseUnreachable, SystemFailure
from episodes_assets.fleet.claims import AsyncConnection
from episodes_assets.postgres import admission
from episodes_assets.postgres.databases import Database

T = TypeVar("T")

# No fault of a job's. An OSError is not among them: it may be an algorithm's own, for ever.
INFRASTRUCTURE = (SystemFailure, psycopg.OperationalError, psycopg.InterfaceError)


class GuardedLedger:
    """The ledger in one session.

    Args:
        connection: To `queue` in autocommit mode, as a worker; each statement stands alone.
        environment: The worker's own.
        silence_seconds: How long the server may be silent; by then the messages are another worker's.
    """

    def __init__(self, connection: AsyncConnection, environment: str, silence_seconds: float) -> None:
        self.connection = connection
        self._environment = environment
        self._silence_seconds = silence_seconds

    async def ask(self, statement: Coroutine[None, None, T]) -> T:
        """What a statement returns.

        Raises:
            DatabaseUnreachable: If the server is silent for too long. The connection is closed then:
                cancelling the statement would wait for the silent server.
        """
        task = asyncio.ensure_future(statement)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._silence_seconds)
        except asyncio.CancelledError:
            await self._give_up(task)
            raise
        if not done:
            await self._give_up(task)
            raise DatabaseUnreachable(f"the queue was silent for {self._silence_seconds:g} seconds")
        return task.result()

    async def _give_up(self, task: asyncio.Future[Any]) -> None:
        await self.connection.close()
        task.cancel()
        await asyncio.wait({task}, timeout=1)

    async def require_admission(self) -> None:
        """The schema may be upgraded, or the stamp changed, while a worker runs.

        Raises:
            WrongEnvironment: If the queue belongs to another environment by now.
            SchemaTooOld: If its schema is of an older release by now.
            SchemaTooNew: If its schema is of a newer release by now.
            DatabaseUnreachable: As `ask`.
        """
        cursor = await self.ask(self.connection.execute(admission.READ_ADMISSION))
        found = await cursor.fetchone()
        admission.require_admission(found or (None, None), Database.QUEUE, self._environment, "the queue")

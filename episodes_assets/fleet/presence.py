"""A worker's signs of life: every few seconds a row in `ledger.workers` says that it lives and what it does.

They come from the worker's event loop, so that a loop that hangs falls silent, and go over a connection
of their own, so that nothing that happens to them touches the work.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from episodes_assets.errors import EpisodesError
from episodes_assets.ledger.claims import GuardedLedger
from episodes_assets.ledger.workers import Activity, WorkerName, say_alive
from episodes_assets.postgres.session import SessionKind, pin_async

log = logging.getLogger(__name__)
BEAT_SECONDS = 5.0
CONNECT_SECONDS = 3
# A sign that takes longer has missed its time; the next one says the same.
SILENCE_SECONDS = 3.0
GOODBYE_SECONDS = 2.0


@dataclass(frozen=True)
class Presence:
    """The signs of life of one worker.

    Attributes:
        queue_dsn: The queue database, as a worker.
        environment: The worker's own; it says nothing in a queue of another one.
        name: Which process it is.
        activity: What it does.
    """

    queue_dsn: str
    environment: str
    name: WorkerName
    activity: Activity

    async def keep(self, stopped: asyncio.Event) -> None:
        """Give signs of life until the worker has stopped, and say so then.

        A queue that is away, silent or another one's by now is tried again at the next beat, and once more
        when the worker has stopped: the session may have ended while nothing was said. Nothing is raised: the
        work itself says what is wrong.
        """
        is_last = False
        while not is_last:
            is_last = stopped.is_set()
            with suppress(psycopg.Error, EpisodesError, OSError):
                await self._keep_once(stopped)
                return
            await _wait(stopped, BEAT_SECONDS)

    async def _keep_once(self, stopped: asyncio.Event) -> None:
        async with await psycopg.AsyncConnection.connect(
            self.queue_dsn,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name="episodes presence",
        ) as connection:
            await pin_async(connection, SessionKind.OURS)
            ledger = GuardedLedger(connection, self.environment, SILENCE_SECONDS)
            while True:
                is_last = stopped.is_set()
                await ledger.require_admission()
                await ledger.ask(say_alive(connection, self.name, self.activity, is_last=is_last))
                if is_last:
                    return
                await _wait(stopped, BEAT_SECONDS)


async def end(task: asyncio.Task[None], stopped: asyncio.Event) -> None:
    """Let a worker's signs of life end; whatever the queue does, in a moment."""
    stopped.set()
    await asyncio.wait({task}, timeout=GOODBYE_SECONDS)
    task.cancel()
    await asyncio.wait({task}, timeout=GOODBYE_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)

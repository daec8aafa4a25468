"""A worker's sessions with the queue: its connections and PgQueuer's manager, made anew when they fail."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import psycopg
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager

from episodes_assets.errors import EpisodesError, SystemFailure
from episodes_assets.failures import explain, name_defect
from episodes_assets.fleet.chunk import ChunkRules, ChunkRunner
from episodes_assets.fleet.compute_process import ComputeProcess
from episodes_assets.ledger.claims import GuardedLedger
from episodes_assets.ledger.dispatch import ENTRYPOINT, ChunkMessage
from episodes_assets.ledger.messages import OwnMessages
from episodes_assets.ledger.workers import Activity
from episodes_assets.postgres import session
from episodes_assets.postgres.connect import connect_to_write
from episodes_assets.postgres.databases import Database
from episodes_assets.postgres.dsn import to_asyncpg_url
from episodes_assets.postgres.locks import LockWatch
from episodes_assets.postgres.session import SessionKind, pin_async

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
CONNECT_SECONDS = 10.0
# One chunk computes while the next is claimed. PgQueuer's default is no limit at all: one worker
# would claim the whole backlog.
BATCH_SIZE = 1
MAX_CONCURRENT_TASKS = 2


class SessionLost(Exception):
    """The connection to the ledger is gone."""


@dataclass(frozen=True)
class Sessions:
    """What all sessions of a worker share.

    Attributes:
        queue_dsn: The queue database, as a worker.
        process: Where micro-batches are computed.
        rules: How chunks are treated.
        activity: Is told what the worker does.
        environment: The worker's own; it may only work in a queue of this one.
        heartbeat_seconds: Silence after which a worker's messages go to another.
    """

    queue_dsn: str
    process: ComputeProcess
    rules: ChunkRules
    activity: Activity
    environment: str
    heartbeat_seconds: float

    async def work(self, stopping: asyncio.Event) -> None:
        """Work until told to stop; connect again, with growing pauses, whenever the queue goes away.

        Raises:
            WrongEnvironment: If the queue belongs to another environment by now.
            SchemaTooOld: If its schema is of an older release by now.
            SchemaTooNew: If its schema is of a newer release by now.
        """
        failures, pause = 0, 0.0
        while not stopping.is_set():
            began = time.monotonic()
            try:
                await asyncio.to_thread(self._require_admission)
                if failures:
                    log.info("the queue is back")
                await self._work_once(stopping)
            except SystemFailure as error:
                reason = error.what
            except EpisodesError:
                raise
            except Exception as error:  # noqa: BLE001  two drivers and PgQueuer have many names for an outage
                cause = explain(error, "the queue")
                reason = cause.what if cause else name_defect(error)
            else:
                continue
            if time.monotonic() - began > pause:  # it was worth connecting again
                failures = 0
            # Spread, so that a fleet does not come back all at once.
            pause = min(FIRST_PAUSE_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)  # noqa: S311
            failures += 1
            log.warning("lost the queue (%s); connecting again in %.1f s", reason, pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    def _require_admission(self) -> None:
        with connect_to_write(self.queue_dsn, Database.QUEUE, self.environment):
            pass

    async def _work_once(self, stopping: asyncio.Event) -> None:
        async with self._connections() as (messages, connection):
            over = asyncio.Event()
            manager = QueueManager(OwnMessages.from_asyncpg_connection(messages))
            manager.shutdown = over
            ledger = GuardedLedger(connection, self.environment, self.heartbeat_seconds)
            runner = ChunkRunner(ledger, self.process, self.rules, self.activity, stopping, over)

            @manager.entrypoint(ENTRYPOINT, on_failure="hold")
            async def work_chunk(job: Job) -> None:
                await runner.run(ChunkMessage.decode(job.payload or b""), job.attempts)

            end = asyncio.create_task(_set_after(stopping, over))
            try:
                await manager.run(
                    batch_size=BATCH_SIZE,
                    max_concurrent_tasks=MAX_CONCURRENT_TASKS,
                    dequeue_timeout=timedelta(seconds=5),
                    heartbeat_timeout=timedelta(seconds=self.heartbeat_seconds),
                    shutdown_on_listener_failure=True,
                )
            finally:
                end.cancel()
            if runner.refusal is not None:
                raise runner.refusal
            if not stopping.is_set():
                raise SessionLost("the connection to the ledger broke")

    @asynccontextmanager
    async def _connections(self) -> AsyncIterator[tuple[asyncpg.Connection, psycopg.AsyncConnection]]:
        # PgQueuer's driver for psycopg keeps the connection for up to a second while it waits for a notice,
        # and every dequeue waits along (5,204 jobs in 5.4 s instead of 1.9 s).
        messages = await asyncpg.connect(
            to_asyncpg_url(self.queue_dsn),
            timeout=CONNECT_SECONDS,
            command_timeout=self.heartbeat_seconds,
            server_settings={"application_name": "episodes messages"},
        )
        try:
            await messages.execute(session.statement(SessionKind.PGQUEUER))
            async with await psycopg.AsyncConnection.connect(
                self.queue_dsn,
                autocommit=True,
                connect_timeout=int(CONNECT_SECONDS),
                application_name="episodes ledger",
            ) as ledger:
                await pin_async(ledger, SessionKind.OURS)
                with LockWatch(self.queue_dsn, ledger):  # logs whom it waits for, before `ledger` is given up
                    yield messages, ledger
        finally:
            try:
                await messages.close(timeout=CONNECT_SECONDS)
            except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
                messages.terminate()


async def _set_after(first: asyncio.Event, then: asyncio.Event) -> None:
    await first.wait()
    then.set()

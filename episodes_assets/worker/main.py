"""One worker process: sessions with the queue until it is stopped, and its heartbeats.

A session is its connections and PgQueuer's manager, made anew, with growing pauses (backoff), when they fail.
Every few seconds the worker updates its row in `ledger.workers`: from its event loop, so that a loop that
hangs falls silent, and over a separate connection, so that failures of it do not touch the work. A worker
that a command started stops when that command is gone. What is done with a message is `chunk`.
"""

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg
import psycopg
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager

from episodes_assets.errors import EpisodesError, SystemFailure
from episodes_assets.failures import explain, name_defect
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.claims import GuardedLedger
from episodes_assets.ledger.dispatch import ENTRYPOINT, ChunkMessage
from episodes_assets.ledger.messages import OwnMessages
from episodes_assets.ledger.workers import Activity, WorkerName, send_heartbeat
from episodes_assets.postgres import connect, dsn, session
from episodes_assets.postgres.databases import Database
from episodes_assets.postgres.locks import LockWatch
from episodes_assets.postgres.session import SessionKind, pin_async
from episodes_assets.worker.chunk import ChunkRules, ChunkRunner
from episodes_assets.worker.compute import ComputeProcess, TimeLimits, warm_up
from episodes_assets.worker.outage import StartsToUncount
from episodes_assets.worker.profiler import Profiler

log = logging.getLogger(__name__)
BEAT_SECONDS = 5.0
PRESENCE_CONNECT_SECONDS = 3
# A heartbeat that takes longer is given up; the next one has the same content.
SILENCE_SECONDS = 3.0
GOODBYE_SECONDS = 2.0


@dataclass(frozen=True)
class Presence:
    """The heartbeats of one worker.

    Attributes:
        queue_dsn: The queue database, as a worker.
        environment: The worker's own; nothing is written to a queue of another one.
        name: Its process.
        activity: What it does.
        profiler: Takes profiles of what it does, also while that hangs; None to take none.
    """

    queue_dsn: str
    environment: str
    name: WorkerName
    activity: Activity
    profiler: Profiler | None = None

    async def keep(self, stopped: asyncio.Event) -> None:
        """Write heartbeats until the worker has stopped, and record the stop.

        A queue that is unreachable, silent or of another environment is tried again at the next heartbeat,
        and once more when the worker has stopped. Nothing is raised, as the session that works reports what
        is wrong.
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
            connect_timeout=PRESENCE_CONNECT_SECONDS,
            application_name="episodes presence",
        ) as connection:
            await pin_async(connection, SessionKind.OURS)
            ledger = GuardedLedger(connection, self.environment, SILENCE_SECONDS)
            while True:
                is_last = stopped.is_set()
                await ledger.require_admission()
                await ledger.execute(send_heartbeat(connection, self.name, self.activity, is_last=is_last))
                if is_last:
                    return
                if self.profiler is not None:
                    await self.profiler.look(ledger)
                await _wait(stopped, BEAT_SECONDS)


async def end_presence(task: asyncio.Task[None], stopped: asyncio.Event) -> None:
    """End a worker's heartbeats, without waiting long for the queue."""
    stopped.set()
    await asyncio.wait({task}, timeout=GOODBYE_SECONDS)
    task.cancel()
    await asyncio.wait({task}, timeout=GOODBYE_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
SESSION_CONNECT_SECONDS = 10.0
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
        activity: Set to what the worker does.
        environment: The worker's own, to which the queue must belong.
        heartbeat_seconds: Silence after which a worker's messages go to another.
        profiler: Takes the profiles that are wanted; None to take none.
        to_uncount: Starts that no job is to blame for.
    """

    queue_dsn: str
    process: ComputeProcess
    rules: ChunkRules
    activity: Activity
    environment: str
    heartbeat_seconds: float
    profiler: Profiler | None = None
    to_uncount: StartsToUncount = field(default_factory=StartsToUncount)

    async def work(self, stopping: asyncio.Event) -> None:
        """Work until stopped; connect again, with growing pauses (backoff), whenever the queue goes away.

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
            if time.monotonic() - began > pause:  # the session has lasted
                failures = 0
            # With jitter, so that workers do not reconnect all at once (thundering herd).
            pause = min(FIRST_PAUSE_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)  # noqa: S311
            failures += 1
            log.warning("lost the queue (%s); connecting again in %.1f s", reason, pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    def _require_admission(self) -> None:
        with connect.connect_to_write(self.queue_dsn, Database.QUEUE, self.environment):
            pass

    async def _work_once(self, stopping: asyncio.Event) -> None:
        async with self._connections() as (messages, connection):
            over = asyncio.Event()
            manager = QueueManager(OwnMessages.from_asyncpg_connection(messages))
            manager.shutdown = over
            ledger = GuardedLedger(connection, self.environment, self.heartbeat_seconds)
            runner = ChunkRunner(
                ledger,
                self.process,
                self.rules,
                self.activity,
                stopping,
                over,
                self.profiler,
                self.to_uncount,
            )
            await self.to_uncount.uncount(ledger)

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
        # PgQueuer's driver for psycopg holds the connection for up to a second while it waits for a notice,
        # and every dequeue waits meanwhile (5,204 jobs in 5.4 s instead of 1.9 s).
        messages = await asyncpg.connect(
            dsn.to_asyncpg_url(self.queue_dsn),
            timeout=SESSION_CONNECT_SECONDS,
            command_timeout=self.heartbeat_seconds,
            server_settings={"application_name": "episodes messages"},
        )
        try:
            await messages.execute(session.statement(SessionKind.PGQUEUER))
            async with await psycopg.AsyncConnection.connect(
                self.queue_dsn,
                autocommit=True,
                connect_timeout=int(SESSION_CONNECT_SECONDS),
                application_name="episodes ledger",
            ) as ledger:
                await pin_async(ledger, SessionKind.OURS)
                with LockWatch(self.queue_dsn, ledger):  # logs who holds a lock, before the time limit
                    yield messages, ledger
        finally:
            try:
                await messages.close(timeout=SESSION_CONNECT_SECONDS)
            except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
                messages.terminate()


async def _set_after(first: asyncio.Event, then: asyncio.Event) -> None:
    await first.wait()
    then.set()


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration of a worker.

    The hosts of the queue and of the lake must have been checked to be allowed.
    """

    queue_dsn: str
    lake_url: str
    environment: str
    max_starts: int
    retry_seconds: float
    limits: TimeLimits
    compute_memory_mb: int
    heartbeat_seconds: float
    parent: int | None = None  # the process to stop with


def run_worker(config: WorkerConfig) -> None:
    """Work until SIGTERM or SIGINT; then finish the current batch and release all other claims.

    A second signal ends the process at once. That loses nothing either: claims and messages go to
    another worker when this one's heartbeats stop.

    Raises:
        DatabaseUnreachable: If a database cannot be reached at the start; later it waits for it.
        WrongEnvironment: If the queue belongs to another environment.
        SchemaTooOld: If the queue's schema is of an older release.
        SchemaTooNew: If the queue's schema is of a newer release.
        LakeDamaged: If the lake cannot be read.
    """
    with connect.connect_to_write(config.queue_dsn, Database.QUEUE, config.environment):
        pass
    Viewings(config.lake_url).newest()
    asyncio.run(_work(config))


async def _work(config: WorkerConfig) -> None:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    watcher = asyncio.create_task(_watch_parent(config.parent, stopping)) if config.parent else None
    process = ComputeProcess(config.compute_memory_mb)
    await _warm_up(process, config, stopping)
    name, activity = WorkerName(), Activity()
    rules = ChunkRules(
        worker=str(name),
        lake_url=config.lake_url,
        limits=config.limits,
        max_starts=config.max_starts,
        retry_seconds=config.retry_seconds,
    )
    stopped = asyncio.Event()
    profiler = Profiler(str(name), process)
    presence = Presence(config.queue_dsn, config.environment, name, activity, profiler)
    heartbeats = asyncio.create_task(presence.keep(stopped))
    log.info("worker %s is ready", name)
    try:
        sessions = Sessions(
            config.queue_dsn,
            process,
            rules,
            activity,
            config.environment,
            config.heartbeat_seconds,
            profiler,
        )
        await sessions.work(stopping)
    finally:
        profiler.close()
        await end_presence(heartbeats, stopped)
        if watcher is not None:
            watcher.cancel()
        process.close()
    log.info("worker %s has stopped", name)


async def _warm_up(process: ComputeProcess, config: WorkerConfig, stopping: asyncio.Event) -> None:
    """Warm up the compute process, within its time limit, unless the worker is to stop."""
    warming = asyncio.create_task(process.run(config.limits.batch, warm_up, config.lake_url))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({warming, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not warming.done():
        process.kill()
    # An error that lasts is reported by the first batch.
    with suppress(Exception):
        await warming


def _stop_on_signals(stopping: asyncio.Event) -> None:
    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            log.warning("stopping at once")
            os._exit(128 + number)
        log.info("%s: finishing the current batch; again to stop at once", number.name)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)


async def _watch_parent(parent: int, stopping: asyncio.Event) -> None:
    """Stop the worker when the command that started it has ended, in whatever way."""
    while os.getppid() == parent:
        await asyncio.sleep(1)
    log.warning("the parent process is gone")
    stopping.set()

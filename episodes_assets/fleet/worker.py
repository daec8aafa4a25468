"""One worker process: PgQueuer's queue manager over chunks, until it is told to stop."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pgqueuer
import psycopg
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from episodes_assets.databases.connections import connect, connect_to_write
from episodes_assets.databases.input_role import check_input_role
from episodes_assets.databases.purposes import Database
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.fleet.chunk import ChunkRunner
from episodes_assets.fleet.compute_process import ComputeProcess
from episodes_assets.fleet.messages import ENTRYPOINT, ChunkMessage
from episodes_assets.fleet.micro_batch import warm_up
from episodes_assets.settings import PRODUCTION

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 2.0
# One chunk computes while the next is claimed. PgQueuer's default is no limit at all: one worker
# would claim the whole backlog.
BATCH_SIZE = 1
MAX_CONCURRENT_TASKS = 2


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know."""

    queue_dsn: str
    input_dsn: str
    environment: str
    max_starts: int
    retry_seconds: float
    batch_timeout_seconds: float
    heartbeat_seconds: float
    stop_with_parent: bool = False


def run_worker(config: WorkerConfig) -> None:
    """Work until SIGTERM or SIGINT; then finish what computes and give back what does not.

    A second signal ends the process at once. That loses nothing either: claims and messages go to
    another worker when this one's heartbeats stay away.

    Raises:
        DatabaseUnreachable: If a database cannot be reached at the start; later it waits for it.
        WrongEnvironment: If the queue belongs to another environment.
        SchemaTooOld: If the queue's schema is of an older release.
        SchemaTooNew: If the queue's schema is of a newer release.
        InputWritable: In production, if the input role could write.
    """
    with connect_to_write(config.queue_dsn, Database.QUEUE, config.environment):
        pass
    with connect(config.input_dsn, read_only=True) as connection:
        check_input_role(connection, is_production=config.environment == PRODUCTION, warn=log.warning)
    asyncio.run(_work(config))


async def _work(config: WorkerConfig) -> None:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    watcher = asyncio.create_task(_watch_parent(stopping)) if config.stop_with_parent else None
    process = ComputeProcess(config.batch_timeout_seconds)
    with suppress(DatabaseUnreachable):  # then the first batch waits for it
        await process.run(warm_up, config.input_dsn)
    name = f"{socket.gethostname()}-{os.getpid()}"
    log.info("worker %s is ready", name)

    @asynccontextmanager
    async def queue_manager() -> AsyncIterator[QueueManager]:
        async with (
            _messages_connection(config.queue_dsn) as messages,
            await psycopg.AsyncConnection.connect(config.queue_dsn, autocommit=True) as ledger,
        ):
            manager = QueueManager(Queries.from_asyncpg_connection(messages))
            runner = ChunkRunner(
                connection=ledger,
                input_dsn=config.input_dsn,
                process=process,
                stopping=stopping,
                worker=name,
                max_starts=config.max_starts,
                retry_seconds=config.retry_seconds,
            )

            @manager.entrypoint(ENTRYPOINT, on_failure="hold")
            async def work_chunk(job: Job) -> None:
                await runner.run(ChunkMessage.decode(job.payload or b""), job.attempts)

            yield manager

    try:
        await pgqueuer.run(
            queue_manager,
            batch_size=BATCH_SIZE,
            max_concurrent_tasks=MAX_CONCURRENT_TASKS,
            dequeue_timeout=timedelta(seconds=5),
            heartbeat_timeout=timedelta(seconds=config.heartbeat_seconds),
            shutdown_on_listener_failure=True,
            restart_on_failure=True,
            restart_delay=timedelta(seconds=RECONNECT_SECONDS),
            shutdown=stopping,
        )
    finally:
        if watcher is not None:
            watcher.cancel()
        process.close()
    log.info("worker %s has stopped", name)


@asynccontextmanager
async def _messages_connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    # Not psycopg: PgQueuer's driver for it keeps the connection for up to a second while it waits for
    # a notice, and every dequeue waits along (5,204 jobs in 5.4 s instead of 1.9 s).
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


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


async def _watch_parent(stopping: asyncio.Event) -> None:
    """A worker that a command started must not outlive it, however that one ends."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)
    log.warning("the parent process is gone")
    stopping.set()

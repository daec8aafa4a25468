"""One worker process: sessions with the queue until it is told to stop."""

import asyncio
import logging
import os
import signal
from contextlib import suppress
from dataclasses import dataclass

from episodes_assets.fleet import presence
from episodes_assets.fleet.chunk import ChunkRules
from episodes_assets.fleet.compute_process import ComputeProcess
from episodes_assets.fleet.micro_batch import warm_up
from episodes_assets.fleet.presence import Presence
from episodes_assets.fleet.session import Sessions
from episodes_assets.fleet.time_limits import TimeLimits
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.workers import Activity, WorkerName
from episodes_assets.postgres.connect import connect_to_write
from episodes_assets.postgres.databases import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know."""

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
    """Work until SIGTERM or SIGINT; then finish what computes and give back what does not.

    A second signal ends the process at once. That loses nothing either: claims and messages go to
    another worker when this one's heartbeats stay away.

    Raises:
        DatabaseUnreachable: If a database cannot be reached at the start; later it waits for it.
        WrongEnvironment: If the queue belongs to another environment.
        SchemaTooOld: If the queue's schema is of an older release.
        SchemaTooNew: If the queue's schema is of a newer release.
        HostNotAllowed: Outside production, if the lake lies on a host that is not listed.
        LakeDamaged: If the lake cannot be read.
    """
    with connect_to_write(config.queue_dsn, Database.QUEUE, config.environment):
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
    signs = asyncio.create_task(Presence(config.queue_dsn, config.environment, name, activity).keep(stopped))
    log.info("worker %s is ready", name)
    try:
        sessions = Sessions(
            config.queue_dsn, process, rules, activity, config.environment, config.heartbeat_seconds
        )
        await sessions.work(stopping)
    finally:
        await presence.end(signs, stopped)
        if watcher is not None:
            watcher.cancel()
        process.close()
    log.info("worker %s has stopped", name)


async def _warm_up(process: ComputeProcess, config: WorkerConfig, stopping: asyncio.Event) -> None:
    """Let the first batch wait for less, within its time limit, unless the worker is to stop."""
    warming = asyncio.create_task(process.run(config.limits.batch, warm_up, config.lake_url))
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait({warming, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not warming.done():
        process.kill()
    # What is away, silent or refused now, the first batch meets as well and reports.
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
    """A worker that a command started must not outlive it, however and however early that one ends."""
    while os.getppid() == parent:
        await asyncio.sleep(1)
    log.warning("the parent process is gone")
    stopping.set()

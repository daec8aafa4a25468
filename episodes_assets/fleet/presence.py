"""A worker's signs of life: every few seconds a row in `ledger.workers` says that it lives and what it does.

They come from the worker's event loop, so that a loop that hangs falls silent, and go over a connection
of their own, so that nothing that happens to them touches the work.
"""

import asyncio
import importlib.metadata
import logging
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from episodes_assets.errors import EpisodesError
from episodes_assets.fleet.activity import Activity
from episodes_assets.fleet.claims import AsyncConnection
from episodes_assets.fleet.guarded_ledger import GuardedLedger
from episodes_assets.postgres.session import SessionKind, pin_async

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
CONNECT_SECONDS = 3
# A sign that takes longer has missed its time; the next one says the same.
SILENCE_SECONDS = 3.0
GOODBYE_SECONDS = 2.0


@dataclass(frozen=True)
class WorkerName:
    """Which process a worker is."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    release: str = field(default_factory=lambda: importlib.metadata.version("episodes-assets"))

    def __str__(self) -> str:
        return f"{self.host}-{self.pid}"


async def say(
    connection: AsyncConnection, name: WorkerName, activity: Activity, *, is_last: bool = False
) -> None:
    """Say that a worker lives and what it does, or that it has stopped.

    Ages are told, not times: only the server's clock counts.

    Args:
        connection: To `queue`, as a worker.
        name: Which process it is.
        activity: What it does.
        is_last: It has stopped.
    """
    now = time.monotonic()
    work = None if is_last else activity.work
    await connection.execute(
        """
        INSERT INTO ledger.workers AS known (worker, host, pid, release, started_at, stopped_at,
            plan_id, chunk, jobs, working_since, finished)
        VALUES (%(worker)s, %(host)s, %(pid)s, %(release)s, now() - make_interval(secs => %(age)s),
            CASE WHEN %(is_last)s THEN now() END, %(plan_id)s, %(chunk)s, %(jobs)s,
            now() - make_interval(secs => %(busy)s), %(finished)s)
        ON CONFLICT (worker) DO UPDATE SET host = excluded.host, pid = excluded.pid,
            release = excluded.release, started_at = excluded.started_at, seen_at = now(),
            stopped_at = excluded.stopped_at, plan_id = excluded.plan_id, chunk = excluded.chunk,
            jobs = excluded.jobs, working_since = excluded.working_since, finished = excluded.finished
        """,
        {
            "worker": str(name),
            "host": name.host,
            "pid": name.pid,
            "release": name.release,
            "age": now - activity.began,
            "is_last": is_last,
            "plan_id": work and work.plan_id,
            "chunk": work and work.chunk,
            "jobs": work and work.jobs,
            "busy": work and now - work.began,
            "finished": activity.finished,
        },
    )


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
                await ledger.ask(say(connection, self.name, self.activity, is_last=is_last))
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

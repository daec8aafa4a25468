"""Workers as processes, what they are given, and what came of it."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from episodes_assets.cli.supervisor import episodes_argv, worker_environment
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.postgres.connect import AsyncConnection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.worker.compute import TimeLimits
from episodes_assets.worker.main import WorkerConfig
from episodes_assets_tests.support.system import System, day


@contextmanager
def worker(system: System, **env: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        episodes_argv("worker"),
        env={**os.environ, **worker_environment(system.settings, system.dsns), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def plan(system: System, *epids: int) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in epids])
    system.plan(day(1))
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        fan_out_day(queue, day(1))


def states(system: System) -> dict[int, str]:
    return dict(system.query("queue", "SELECT epid, state FROM ledger.job_states"))


def run_async(system: System, test: Callable[[AsyncConnection], Any]) -> None:
    async def main() -> None:
        dsn = system.dsn(Purpose.WORKER)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await test(connection)

    asyncio.run(main())


def worker_config(system: System, environment: str) -> WorkerConfig:
    return WorkerConfig(
        queue_dsn=system.dsn(Purpose.WORKER),
        lake_url=system.settings.lake,
        environment=environment,
        max_starts=1,
        retry_seconds=0.1,
        limits=TimeLimits(batch=10, job=10),
        compute_memory_mb=1024,
        heartbeat_seconds=30,
    )

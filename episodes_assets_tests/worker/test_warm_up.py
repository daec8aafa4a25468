"""A worker's first look at the lake: bounded, and left at once when the worker is to stop."""

import asyncio
import os
import time
from dataclasses import replace

import pytest

from episodes_assets.worker import main
from episodes_assets.worker.compute import ComputeProcess, TimeLimits
from episodes_assets.worker.main import WorkerConfig

CONFIG = WorkerConfig(
    queue_dsn="",
    lake_url="",
    environment="development",
    max_starts=1,
    retry_seconds=0,
    limits=TimeLimits(batch=0.1, job=0.1),
    compute_memory_mb=1024,
    heartbeat_seconds=30,
)


def hangs(_lake_url: str) -> None:
    """As a lake does whose network is gone."""
    time.sleep(600)


def dies(_lake_url: str) -> None:
    """As a process does that the kernel kills for its memory."""
    os._exit(9)


async def warm_up(limits: TimeLimits, *, stop: bool = False) -> None:
    process = ComputeProcess(CONFIG.compute_memory_mb)
    stopping = asyncio.Event()
    if stop:
        asyncio.get_running_loop().call_later(0.5, stopping.set)
    try:
        await asyncio.wait_for(main._warm_up(process, replace(CONFIG, limits=limits), stopping), 15)
    finally:
        process.kill()
        process.close()


@pytest.mark.slow
@pytest.mark.parametrize("function", [hangs, dies])
def test_a_lake_that_is_silent_or_fatal_is_left_to_the_first_batch(
    function: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "warm_up", function)
    asyncio.run(warm_up(TimeLimits(batch=0.1, job=0.1)))


def test_a_worker_that_is_to_stop_waits_for_no_lake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "warm_up", hangs)
    asyncio.run(warm_up(TimeLimits(batch=600, job=600), stop=True))

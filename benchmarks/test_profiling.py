"""What a profile costs: a day's jobs computed with nobody looking, with py-spy, and with the sampler.

They take turns, round by round and each time in another order, so that whatever else the machine does
meanwhile slows all of them.
"""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from benchmarks import inputs
from benchmarks.conftest import Measure, forget_days
from benchmarks.ledger import CHUNK_JOBS, jobs_frame
from benchmarks.sizes import Sizes
from episodes_assets.profiling.engines import (
    DEFAULT_RATE,
    Engine,
    PySpyRecording,
    Recording,
    RemoteSampler,
    Sampling,
)
from episodes_assets.profiling.stacks import Profile
from episodes_assets.worker.compute import ComputeProcess, JobWindows, run_micro_batch
from episodes_assets_tests.support.system import System

GROUP = "profiling"
NOBODY = "not profiled"
WINDOW_DAYS = 28
# Enough that a difference of a twentieth is seen.
ROUNDS = 9
Outcomes = list[dict[str, list[Any]]]


def windows(jobs: int) -> list[JobWindows]:
    """A day's jobs, chunk by chunk."""
    frame = jobs_frame(jobs, window_days=WINDOW_DAYS)
    return [
        JobWindows(
            epid=part["epid"].to_numpy(),
            algorithm_id=part["algorithm_id"].to_numpy(),
            window_start=part["window_start"].to_numpy().astype("datetime64[D]"),
        )
        for part in (frame.iloc[begin : begin + CHUNK_JOBS] for begin in range(0, jobs, CHUNK_JOBS))
    ]


async def compare(system: System, sizes: Sizes) -> dict[str, dict[str, Any]]:
    """For each engine, the seconds of each round and what its last profile takes; all outcomes are equal."""
    newest = system.viewings.newest()
    assert newest is not None
    process = ComputeProcess(4096)
    await process.run(None, os.getpid)
    assert process.pid is not None
    engines: dict[str, Callable[[Sampling], Recording] | None] = {
        NOBODY: None,
        Engine.PY_SPY: partial(PySpyRecording, process.pid),
        Engine.SAMPLER: partial(RemoteSampler, process._sampler, process._sampler_lock),
    }
    found: dict[str, dict[str, Any]] = {engine: {"rounds": [], "bytes": 0} for engine in engines}
    whole: list[Outcomes] = []
    try:
        order = list(engines)
        for _ in range(sizes.rounds if sizes.quick else ROUNDS + 1):
            order.append(order.pop(0))
            for engine in order:
                start = engines[engine]
                recording = start(Sampling(DEFAULT_RATE, 600)) if start else None
                began = time.perf_counter()
                whole.append(
                    [
                        (await process.run(None, run_micro_batch, system.settings.lake, newest.pinned,
                                           inputs.DAY, each)).outcomes
                        for each in windows(sizes.jobs)
                    ]
                )  # fmt: skip
                found[engine]["rounds"].append(time.perf_counter() - began)
                profile = recording.stop().without_waiting() if recording else Profile(DEFAULT_RATE, {})
                found[engine] |= {"bytes": len(profile.pack()), "samples": profile.samples}
    finally:
        process.close()
    assert all(each == whole[0] for each in whole)
    for each in found.values():
        each["rounds"] = each["rounds"][-ROUNDS:]  # the first one warmed up
    return found


@pytest.fixture(scope="module")
def compared(full_day: System, sizes: Sizes) -> dict[str, dict[str, Any]]:
    forget_days(full_day)
    return asyncio.run(compare(full_day, sizes))


@pytest.mark.parametrize("engine", [NOBODY, Engine.PY_SPY, Engine.SAMPLER])
def test_profiling(measure: Measure, compared: dict[str, dict[str, Any]], sizes: Sizes, engine: str) -> None:
    own = compared[engine]
    rounds = iter(own["rounds"])
    measure(
        GROUP,
        f"computing {sizes.jobs:,} jobs, {engine if engine == NOBODY else f'profiled by {engine}'}",
        lambda: {"seconds": next(rounds)},
        rounds=len(own["rounds"]),
        warm=False,
        jobs=sizes.jobs,
        rate=DEFAULT_RATE,
        bytes=own["bytes"],
        samples=own.get("samples", 0),
    )

"""Both engines on real processes: the slow line is the hottest one, whoever looks and whatever is refused."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from episodes_assets.errors import ProfilerUnavailable
from episodes_assets.profiling import engines
from episodes_assets.profiling.engines import (
    MOST_RATE,
    MOST_SECONDS,
    Engine,
    PySpyRecording,
    Recording,
    Sampler,
    Sampling,
    record_self,
)
from episodes_assets.profiling.stacks import MOST_BYTES, Profile
from episodes_assets.worker.compute import ComputationDied, ComputeProcess
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.slow import hangs, is_slow, line_of, of_the_slow_thread, share_of_line

pytestmark = pytest.mark.process

SECONDS = 0.6


def is_the_hottest(profile: Profile) -> None:
    hottest = of_the_slow_thread(profile.without_waiting()).hot_lines(1)[0]
    assert (hottest.frame.file, hottest.frame.line) == (
        "episodes_assets_tests/support/slow.py", line_of("the slow line"),
    )  # fmt: skip
    assert hottest.frame.function.endswith("is_slow.<locals>.<genexpr>")
    assert hottest.samples / profile.rate > SECONDS / 3
    assert len(profile.pack()) < MOST_BYTES


@pytest.mark.parametrize("start", [record_self, lambda sampling, _: Sampler(sampling)])
def test_a_process_profiles_itself(start: Callable[[Sampling, Callable[[str], None]], Recording]) -> None:
    said: list[str] = []
    recording = start(Sampling(), said.append)
    is_slow(SECONDS)
    is_the_hottest(recording.stop())
    # Where the machine lets nobody look, which is told, the sampler does.
    assert recording.engine is (Engine.SAMPLER if said or start is not record_self else Engine.PY_SPY)


def in_a_process(use: Callable[[ComputeProcess], Awaitable[None]]) -> None:
    async def with_process() -> None:
        process = ComputeProcess(1024)
        try:
            await process.run(None, os.getpid)
            await asyncio.wait_for(use(process), 60)
        finally:
            process.kill()
            process.close()

    asyncio.run(with_process())


@pytest.mark.long
def test_a_compute_process_is_profiled_from_outside_and_from_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(process: ComputeProcess) -> None:
        for engine in (Engine.PY_SPY, Engine.SAMPLER):
            said: list[str] = []
            if engine is Engine.SAMPLER:
                monkeypatch.setattr("sysconfig.get_path", lambda _: "/nowhere")
            recording = await asyncio.to_thread(process.record, Sampling(), said.append)
            if said and engine is Engine.PY_SPY:
                pytest.skip(f"this machine refuses it: {said[0]}")
            assert recording.engine is engine
            await process.run(None, is_slow, SECONDS)
            is_the_hottest(await asyncio.to_thread(recording.stop))
        assert said == ["py-spy is not installed beside this Python; sampling inside the process instead"]

    in_a_process(use)


@pytest.mark.long
def test_what_hangs_is_seen_while_it_hangs() -> None:
    async def use(process: ComputeProcess) -> None:
        hanging = asyncio.create_task(process.run(None, hangs, 600))
        await asyncio.to_thread(
            eventually, lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING
        )
        for engine in (partial(process.record, say=lambda _: None), process_sampler(process)):
            recording = await asyncio.to_thread(engine, Sampling(seconds=30))
            samples = await asyncio.to_thread(samples_of, recording)
            assert share_of_line(samples, "the line that hangs") > 0
        process.kill()
        with pytest.raises(ComputationDied):
            await hanging

    in_a_process(use)


def process_sampler(process: ComputeProcess) -> Callable[[Sampling], Recording]:
    return partial(engines.RemoteSampler, process._sampler, process._sampler_lock)


def samples_of(recording: Recording) -> Profile:
    time.sleep(0.3)  # what it is to see takes as long as it is looked at
    return recording.stop()


REFUSED = """
import asyncio, os, sys
from episodes_assets.profiling.engines import Sampling, record_self
from episodes_assets.worker.compute import ComputeProcess
from episodes_assets_tests.support.slow import is_slow, refuse_tracing, share_of_line

def tell(recording, said):
    profile = recording.stop()
    assert share_of_line(profile.without_waiting(), "the slow line") > 0.5, profile.folded()
    print(recording.engine, said)

async def compute():
    process, said = ComputeProcess(1024), []
    await process.run(None, refuse_tracing)
    recording = await asyncio.to_thread(process.record, Sampling(), said.append)
    await process.run(None, is_slow, 0.6)
    await asyncio.to_thread(tell, recording, said[0].replace(str(process.pid), "PID"))
    process.close()

if __name__ == "__main__":
    refuse_tracing()
    said = []
    recording = record_self(Sampling(), said.append)
    is_slow(0.6)
    tell(recording, said[0].replace(str(os.getpid()), "PID"))
    asyncio.run(compute())
"""


@pytest.mark.slow
def test_where_tracing_is_refused_the_process_looks_at_itself_and_says_so(tmp_path: Path) -> None:
    program = tmp_path / "refused.py"
    program.write_text(REFUSED)
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    line = (
        "sampler py-spy cannot attach to process PID (permission denied); sampling inside the process instead"
    )
    assert ended.stdout.splitlines() == [line, line]


@pytest.mark.slow
def test_a_process_that_ends_or_never_was_leaves_what_was_seen() -> None:
    async def use(process: ComputeProcess) -> None:
        recording = await asyncio.to_thread(process.record, Sampling(), lambda _: None)
        inside = await asyncio.to_thread(process_sampler(process), Sampling())
        busy = asyncio.create_task(process.run(None, is_slow, 600))
        await asyncio.to_thread(time.sleep, 0.3)
        process.kill()
        with pytest.raises(ComputationDied):
            await busy
        if recording.engine is Engine.PY_SPY:
            assert share_of_line(await asyncio.to_thread(recording.stop), "the slow line") > 0
        with pytest.raises(ProfilerUnavailable, match="the process that was profiled is gone"):
            await asyncio.to_thread(inside.stop)
        with pytest.raises(ProfilerUnavailable, match="the worker computes nothing at the moment"):
            process.record(Sampling(), lambda _: None)
        await process.run(None, os.getpid)
        again = await asyncio.to_thread(process_sampler(process), Sampling())
        await process.run(None, is_slow, SECONDS)
        is_the_hottest(await asyncio.to_thread(again.stop))

    in_a_process(use)


def test_a_profiler_that_is_killed_stops_nobody() -> None:
    target = subprocess.Popen(
        [sys.executable, "-P", "-c", "from episodes_assets_tests.support.slow import is_slow; is_slow(600)"]
    )
    try:
        eventually(lambda: "is_slow" in " ".join(psutil.Process(target.pid).cmdline()))
        recording = None
        while recording is None:
            try:
                recording = PySpyRecording(target.pid, Sampling())
            except ProfilerUnavailable as error:  # it is just starting
                if "permission" in error.what:
                    pytest.skip(error.what)
        recording._process.send_signal(signal.SIGKILL)
        with pytest.raises(ProfilerUnavailable, match="py-spy was killed"):
            recording.stop()
        used = psutil.Process(target.pid).cpu_times().user
        eventually(lambda: psutil.Process(target.pid).cpu_times().user > used)
        assert psutil.Process(target.pid).status() != psutil.STATUS_STOPPED
    finally:
        target.kill()
        target.wait()


def test_a_profile_ends_by_itself() -> None:
    recording = Sampler(Sampling(rate=200, seconds=0.2))
    is_slow(0.6)
    assert 1 <= of_the_slow_thread(recording.stop()).samples <= 100


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (MOST_RATE + 1, 1), (100, 0), (100, MOST_SECONDS + 1)])
def test_what_would_burden_a_process_is_refused(rate: int, seconds: float) -> None:
    with pytest.raises(ProfilerUnavailable, match="out of bounds"):
        Sampling(rate, seconds)

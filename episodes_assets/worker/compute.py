"""A worker's compute process, and the worker's handle on it: time limit, memory limit, kill and restart.

Modules of algorithms may crash, hang or leak, so they are imported and run in a child process that has no
DSN, while the worker goes on with its heartbeats (process isolation). A child that dies or exceeds its time
limit is replaced. Its memory is limited, so a job that hoards memory fails with a traceback. A module that
raises, hangs or ends its process on import fails the jobs of its algorithm alone. One read of the lake serves
many jobs, computed in parts of bounded size. Which jobs start together, and which of a failed batch is to
blame, is decided in `chunk`.
"""

import asyncio
import datetime as dt
import functools
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, TypeVarTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from episodes_assets.algorithms.compute import compute_outcomes
from episodes_assets.algorithms.registry import AlgorithmUnavailable, get_registry, load
from episodes_assets.errors import ProfilerUnavailable
from episodes_assets.failures import describe_exit
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.lake.viewings import Viewings, covered_from, require_day
from episodes_assets.ledger.claims import JobFailure
from episodes_assets.profiling.engines import (
    Recording,
    RemoteSampler,
    Sampling,
    allow_tracing_by,
    record,
    serve_sampler,
)


@dataclass(frozen=True)
class JobWindows:
    """What a micro-batch needs to know of its jobs, column by column.

    Attributes:
        epid: int64.
        algorithm_id: int16.
        window_start: datetime64[D].
    """

    epid: npt.NDArray[np.int64]
    algorithm_id: npt.NDArray[np.int16]
    window_start: npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class MicroBatch:
    """The results of a micro-batch.

    Attributes:
        outcomes: In the jobs' order: `covered_from` (date or None), `metrics` (JSON text),
            `algorithm_version`.
        seconds_by_algorithm: What computing took, by `algorithm_id`.
    """

    outcomes: dict[str, list[Any]]
    seconds_by_algorithm: dict[int, float]


def warm_up(lake_url: str) -> None:
    """Do in advance what the first micro-batch would wait for: imports, and opening the lake.

    Raises:
        LakeDamaged: If the lake cannot be read.
        SystemFailure: If it cannot be reached.
    """
    _viewings(lake_url).newest()


def import_algorithm(algorithm_id: int) -> None:
    """Import the algorithm's module; it stays in this process.

    Raises:
        AlgorithmUnavailable: If no job of the algorithm can run here.
    """
    load(algorithm_id)


def run_micro_batch(lake_url: str, pinned: PinnedVersion, day: dt.date, windows: JobWindows) -> MicroBatch:
    """Compute the outcomes of many jobs of a day.

    Args:
        lake_url: The lake.
        pinned: The version of its viewings that the day's plan names.
        day: The day.
        windows: Its jobs.

    Raises:
        LakeMissing: If the lake has no such version, or the version lacks the day.
        LakeReplaced: If the lake is not the one that the plan was made from.
        LakeDamaged: If a file of the lake is gone, was cut or changed.
        SystemFailure: If the lake cannot be reached.
        ViewingUnreadable: If the input's `completed` of a viewing could not be read.
        AlgorithmFailed: If an algorithm raises something.
        BadAlgorithm: If an algorithm does not return what it declares.
    """
    jobs = pd.DataFrame(
        {
            "epid": windows.epid,
            "algorithm_id": windows.algorithm_id,
            "window_start": windows.window_start.astype("datetime64[s]"),
            "day": np.datetime64(day, "s"),
        }
    )
    viewings = _viewings(lake_url)
    version = viewings.at(*pinned, by=f"the plan of {day}")
    require_day(version, day, viewings.shown)
    earliest = jobs.groupby("epid")["window_start"].min()
    parts = viewings.read(version.number, earliest.index.to_numpy(), earliest.to_numpy(), day)
    metrics, versions = np.empty(len(jobs), object), np.empty(len(jobs), object)
    seconds = np.zeros(len(jobs))
    is_left = np.ones(len(jobs), np.bool_)
    for upto, table in parts:
        own = np.flatnonzero(is_left & (windows.epid <= upto))
        computed = compute_outcomes(jobs.iloc[own], table)
        metrics[own], versions[own], seconds[own] = computed.metrics, computed.versions, computed.seconds
        is_left[own] = False
    algorithm_ids, algorithm = np.unique(windows.algorithm_id, return_inverse=True)
    totals = np.bincount(algorithm, seconds)
    return MicroBatch(
        outcomes={
            "covered_from": _covered_from(windows.window_start, covered_from(version, day)),
            "metrics": metrics.tolist(),
            "algorithm_version": versions.tolist(),
        },
        seconds_by_algorithm=dict(zip(algorithm_ids.tolist(), totals.tolist(), strict=True)),
    )


@functools.cache
def _viewings(lake_url: str) -> Viewings:
    """The table of viewings, one for each process, as it caches the footers of files."""
    return Viewings(lake_url)


def _covered_from(window_start: npt.NDArray[np.datetime64], begin: dt.date | None) -> list[dt.date | None]:
    """For each window, the first date from which on the lake has its viewings; None if it has none."""
    if begin is None:
        return [None] * len(window_start)
    first: list[dt.date | None] = np.maximum(window_start, np.datetime64(begin, "D")).tolist()
    return first


@dataclass(frozen=True)
class TimeLimits:
    """The limits of one worker, in seconds.

    Attributes:
        batch: Of jobs that run together.
        job: Of a job that runs alone, unless its algorithm has a limit of its own.
        by_algorithm: Limits set for algorithms by name; they go before what the modules declare.
    """

    batch: float
    job: float
    by_algorithm: Mapping[str, float] = field(default_factory=dict)

    def of(self, algorithm_ids: Collection[int]) -> float:
        """The limit of some jobs that start together, given the algorithm of each.

        A job alone gets its own. Several get that of a batch, or what the slowest of them may take alone
        when that is longer.
        """
        longest = max(self._of_one(algorithm_id) for algorithm_id in set(algorithm_ids))
        return longest if len(algorithm_ids) == 1 else max(self.batch, longest)

    def _of_one(self, algorithm_id: int) -> float:
        algorithm = get_registry().by_id.get(algorithm_id)
        if algorithm is None:
            return self.job
        return self.by_algorithm.get(algorithm.name) or algorithm.timeout_seconds or self.job


Arguments = TypeVarTuple("Arguments")
R = TypeVar("R")
_END_SECONDS = 2.0


class ComputationDied(Exception):
    """The process died while it computed: killed, out of memory, or crashed."""


class ComputationTooLong(Exception):
    """The computation ran into the time limit and was killed."""


class ComputeProcess:
    """One child process, started at once and again when needed.

    Args:
        memory_megabytes: How much memory it may allocate. More fails with a MemoryError in the code that
            allocates it, before the machine runs out of memory.

    Attributes:
        incarnation: How often the process was replaced; a new one has imported no algorithm yet.
        pid: Of the process; None until it has begun with something.
    """

    def __init__(self, memory_megabytes: int) -> None:
        self.incarnation = 0
        self._memory_megabytes = memory_megabytes
        self.pid: int | None = None
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a forked child would share the worker's connections
        self._sampler, own_end = context.Pipe()
        self._sampler_lock = threading.Lock()
        return ProcessPoolExecutor(
            max_workers=1,
            mp_context=context,
            initializer=_prepare,
            initargs=(self._memory_megabytes, own_end),
        )

    async def run(
        self, timeout_seconds: float | None, function: Callable[[*Arguments], R], *args: *Arguments
    ) -> R:
        """Run a function in the process.

        Args:
            timeout_seconds: How long it may take; None for any time.
            function: The function, which can be pickled.
            *args: Its arguments.

        Raises:
            ComputationDied: If the process died.
            ComputationTooLong: If it took longer than the limit.
            Exception: Whatever the function raises.
        """
        loop = asyncio.get_running_loop()
        child: BaseProcess | None = None
        try:
            pid = self.pid = await loop.run_in_executor(self._executor, os.getpid)
            child = next((each for each in multiprocessing.active_children() if each.pid == pid), None)
            future = loop.run_in_executor(self._executor, function, *args)
            done, _ = await asyncio.wait({future}, timeout=timeout_seconds)
            if not done:
                os.kill(pid, signal.SIGKILL)
                await asyncio.wait({future})
                future.exception()
                self._replace()
                raise ComputationTooLong(f"took longer than {timeout_seconds:g} seconds")
            return future.result()
        except BrokenProcessPool as error:
            self._replace()
            raise ComputationDied(
                f"the process that computed it died: {await _describe_end(child)}"
            ) from error

    def record(self, sampling: Sampling, say: Callable[[str], None]) -> Recording:
        """Begin a profile of the process, whatever it does, even if it hangs.

        Args:
            sampling: How.
            say: Called with one line if the better engine is not to be had.

        Raises:
            ProfilerUnavailable: If there is no process yet, or no engine.
        """
        if self.pid is None:
            raise ProfilerUnavailable("the worker computes nothing at the moment", "ask while it does")
        return record(self.pid, sampling, partial(RemoteSampler, self._sampler, self._sampler_lock), say)

    def kill(self) -> None:
        """Kill the process; what it computes raises `ComputationDied`."""
        for process in multiprocessing.active_children():
            process.kill()

    def close(self) -> None:
        """Stop the process when it has finished what it computes."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _replace(self) -> None:
        self._executor.shutdown(wait=False)
        self._sampler.close()
        self.incarnation += 1
        self.pid = None
        self._executor = self._start()


async def _describe_end(child: BaseProcess | None) -> str:
    if child is not None:
        await asyncio.to_thread(child.join, _END_SECONDS)
    if child is None or child.exitcode is None:
        return "killed, out of memory, or crashed"
    return f"it {describe_exit(child.exitcode)}"


def _prepare(memory_megabytes: int, sampler: Connection) -> None:
    allow_tracing_by(os.getppid())  # for py-spy, which the worker starts
    # Ctrl-C reaches the whole process group; the worker decides what becomes of a computation.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not of the address space, which libraries reserve without ever using it.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_megabytes << 20, memory_megabytes << 20))
    threading.Thread(target=_die_with_the_worker, daemon=True).start()
    threading.Thread(target=serve_sampler, args=(sampler,), daemon=True).start()


def _die_with_the_worker() -> None:
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
        os._exit(1)


# How long a failed import is not tried again: each attempt may take the time limit, or end the process.
REMEMBERED_SECONDS = 600.0
# A process that dies once may have been killed from outside.
DEATHS_TO_BLAME = 2


class AlgorithmImports:
    """Imports algorithms in a worker's compute process before any of their jobs start there.

    Args:
        process: Where micro-batches are computed.
        limit_seconds: How long an import may take.
    """

    def __init__(self, process: ComputeProcess, limit_seconds: float) -> None:
        self._process = process
        self._limit_seconds = limit_seconds
        self._imported_by: dict[int, int] = {}
        self._failures: dict[int, tuple[float, JobFailure]] = {}

    async def failures(self, algorithm_ids: Collection[int]) -> dict[int, JobFailure]:
        """Why jobs of some algorithms cannot start, by id; the others are imported when this returns."""
        now = time.monotonic()
        self._failures = {
            each: failed for each, failed in self._failures.items() if now - failed[0] < REMEMBERED_SECONDS
        }
        # An import that ends the process loses those before it, so they are looked for again.
        while missing := sorted(each for each in algorithm_ids if not self._is_settled(each)):
            failure = await self._import(missing[0])
            if failure is None:
                self._imported_by[missing[0]] = self._process.incarnation
            else:
                self._failures[missing[0]] = time.monotonic(), failure
        return {each: self._failures[each][1] for each in algorithm_ids if each in self._failures}

    def _is_settled(self, algorithm_id: int) -> bool:
        is_imported = self._imported_by.get(algorithm_id) == self._process.incarnation
        return is_imported or algorithm_id in self._failures

    async def _import(self, algorithm_id: int) -> JobFailure | None:
        name = get_registry().name_of(algorithm_id)
        for _ in range(DEATHS_TO_BLAME):
            try:
                await self._process.run(self._limit_seconds, import_algorithm, algorithm_id)
            except AlgorithmUnavailable as error:
                return _unavailable(error.reason, error.trace)
            except ComputationTooLong as error:
                return _unavailable(f"{name} does not import ({error})")
            except ComputationDied:
                continue
            return None
        return _unavailable(f"{name} does not import (it ends the process)")


def _unavailable(reason: str, trace: str = "") -> JobFailure:
    return JobFailure(f"{AlgorithmUnavailable.__name__}: {reason}", trace)

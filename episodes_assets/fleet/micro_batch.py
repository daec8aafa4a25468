"""One micro-batch: one read of the lake for many jobs, computed in parts of bounded size.

Runs in a process of its own, so that neither a long computation nor a crash in it stops the worker's
heartbeats.
"""

import datetime as dt
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from episodes_assets.algorithms.compute import compute_outcomes
from episodes_assets.algorithms.registry import load
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.lake.viewings import Viewings, covered_from, require_day


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
    """What came of a micro-batch.

    Attributes:
        outcomes: In the jobs' order: `covered_from` (date or None), `metrics` (JSON text),
            `algorithm_version`.
        seconds_by_algorithm: What computing took, by `algorithm_id`.
    """

    outcomes: dict[str, list[Any]]
    seconds_by_algorithm: dict[int, float]


def warm_up(lake_url: str) -> None:
    """Do once what the first micro-batch would wait for: imports, and a look at the lake.

    Raises:
        LakeDamaged: If the lake cannot be read.
        SystemFailure: If it cannot be reached.
    """
    _viewings(lake_url).newest()


def import_algorithm(algorithm_id: int) -> None:
    """Have the algorithm's module at hand; it stays in this process.

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
        ViewingUnreadable: If it cannot be told of a viewing whether it was completed.
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
    """The process's own, which keeps what it has read of files' ends."""
    return Viewings(lake_url)


def _covered_from(window_start: npt.NDArray[np.datetime64], begin: dt.date | None) -> list[dt.date | None]:
    """The first date of each window whose viewings are there; None when those of none are."""
    if begin is None:
        return [None] * len(window_start)
    first: list[dt.date | None] = np.maximum(window_start, np.datetime64(begin, "D")).tolist()
    return first

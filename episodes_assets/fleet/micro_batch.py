"""One micro-batch: one read of the viewings for many jobs, computed in parts of bounded size.

Runs in a process of its own, so that neither a long computation nor a crash in it stops the worker's
heartbeats.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from episodes_assets.algorithms.compute import compute_outcomes
from episodes_assets.algorithms.registry import load
from episodes_assets.databases.arrow import read_arrow
from episodes_assets.stores.episode_parts import whole_episodes
from episodes_assets.stores.input_columns import forget_columns, look_at_columns
from episodes_assets.stores.input_tables import read_viewings
from episodes_assets.stores.viewings_coverage import viewings_begin

# About 100 MB while it is computed. An episode with more viewings than that is computed by itself.
PART_VIEWINGS = 1_000_000


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


def warm_up(input_dsn: str) -> None:
    """Do once what the first micro-batch would wait for: imports and the connection.

    Raises:
        InputUnreadable: If the input's columns cannot be read.
        DatabaseUnreachable: If the input cannot be reached.
    """
    look_at_columns(input_dsn)
    read_arrow(input_dsn, "SELECT 1", is_ours=False)


def import_algorithm(algorithm_id: int) -> None:
    """Have the algorithm's module at hand; it stays in this process.

    Raises:
        AlgorithmUnavailable: If no job of the algorithm can run here.
    """
    load(algorithm_id)


def run_micro_batch(input_dsn: str, day: dt.date, windows: JobWindows) -> MicroBatch:
    """Compute the outcomes of many jobs of a day.

    Raises:
        InputUnreadable: If the input's columns cannot be read.
        ViewingUnreadable: If it cannot be told of a viewing whether it was completed.
        DatabaseUnreachable: If the input cannot be reached.
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
    earliest = jobs.groupby("epid")["window_start"].min()
    since = windows.window_start.min().item()
    try:
        batches = read_viewings(input_dsn, earliest.index.to_numpy(), earliest.to_numpy(), day)
        outcomes = [compute_outcomes(some, viewings) for some, viewings in _parts(jobs, batches)]
    except Exception:
        forget_columns(input_dsn)
        raise
    result = pd.concat(outcomes).reindex(jobs.index)
    seconds = result["seconds"].groupby(jobs["algorithm_id"]).sum()
    return MicroBatch(
        outcomes={
            "covered_from": _covered_from(windows.window_start, viewings_begin(input_dsn, day, since), day),
            "metrics": result["metrics"].tolist(),
            "algorithm_version": result["algorithm_version"].tolist(),
        },
        seconds_by_algorithm={int(str(each)): float(total) for each, total in seconds.items()},
    )


def _parts(jobs: pd.DataFrame, viewings: Iterable[pa.RecordBatch]) -> Iterator[tuple[pd.DataFrame, pa.Table]]:
    """Jobs with all of their viewings, in parts of bounded size."""
    tables = whole_episodes(viewings, PART_VIEWINGS)
    table = next(tables)
    for following in tables:
        upto = table["epid"][-1].as_py()
        yield jobs[jobs["epid"] <= upto], table
        jobs, table = jobs[jobs["epid"] > upto], following
    yield jobs, table  # the last part has those without any viewing as well


def _covered_from(
    window_start: npt.NDArray[np.datetime64], viewings_begin: dt.date | None, day: dt.date
) -> list[dt.date | None]:
    """The first date of each window whose viewings still exist; None when none of them does."""
    if viewings_begin is None or viewings_begin > day:
        return [None] * len(window_start)
    first: list[dt.date | None] = np.maximum(window_start, np.datetime64(viewings_begin, "D")).tolist()
    return first

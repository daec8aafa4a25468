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
from episodes_assets.stores.input_tables import ViewingsReader

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


def warm_up(input_dsn: str) -> None:
    """Do once what the first micro-batch would wait for: imports and the connection.

    Raises:
        DatabaseUnreachable: If the input cannot be read.
    """
    with ViewingsReader.open(input_dsn):
        pass


def run_micro_batch(input_dsn: str, day: dt.date, windows: JobWindows) -> dict[str, list[Any]]:
    """Compute the outcomes of many jobs of a day.

    Returns:
        In the jobs' order: `covered_from` (date or None), `metrics` (JSON text),
        `algorithm_version`.

    Raises:
        DatabaseUnreachable: If the input cannot be read.
        Exception: Whatever an algorithm raises.
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
    with ViewingsReader.open(input_dsn) as reader:
        begin = reader.begin()
        batches = reader.read(earliest.index.to_numpy(), earliest.to_numpy(), day)
        outcomes = [
            compute_outcomes(some, viewings) for some, viewings in _parts(jobs, batches, PART_VIEWINGS)
        ]
    result = pd.concat(outcomes).reindex(jobs.index)
    return {
        "covered_from": _covered_from(windows.window_start, begin, day),
        "metrics": result["metrics"].tolist(),
        "algorithm_version": result["algorithm_version"].tolist(),
    }


def _parts(
    jobs: pd.DataFrame, batches: Iterable[pa.RecordBatch], limit: int
) -> Iterator[tuple[pd.DataFrame, pa.Table]]:
    """Split jobs, and the viewings that arrive ordered by epid, between episodes into parts.

    Each part has all viewings of its jobs, and no more of them than `limit` unless one episode has.
    """
    done = np.iinfo(np.int64).min  # every episode up to this one is dealt with
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if rows + batch.num_rows > limit and rows:
            table = pa.Table.from_batches(waiting)
            last = table["epid"][-1].as_py()
            end = int(np.searchsorted(table["epid"].to_numpy(), last))
            if end:
                upto = table["epid"][end - 1].as_py()
                yield jobs[(jobs["epid"] > done) & (jobs["epid"] <= upto)], table[:end]
                done, waiting, rows = upto, table[end:].to_batches(), table.num_rows - end
        waiting.append(batch)
        rows += batch.num_rows
    rest = jobs[jobs["epid"] > done]
    if len(rest):
        yield rest, pa.Table.from_batches(waiting)


def _covered_from(
    window_start: npt.NDArray[np.datetime64], viewings_begin: dt.date | None, day: dt.date
) -> list[dt.date | None]:
    """The first date of each window whose viewings still exist; None when none of them does."""
    if viewings_begin is None or viewings_begin > day:
        return [None] * len(window_start)
    first: list[dt.date | None] = np.maximum(window_start, np.datetime64(viewings_begin, "D")).tolist()
    return first

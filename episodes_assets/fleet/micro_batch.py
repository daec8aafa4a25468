"""One micro-batch: one read of the viewings for many jobs, one computation of whole columns.

Runs in a process of its own, so that neither a long computation nor a crash in it stops the worker's
heartbeats.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from episodes_assets.algorithms.compute import compute_outcomes
from episodes_assets.stores import input_tables


@dataclass(frozen=True)
class JobWindow:
    """What a micro-batch needs to know of a job."""

    epid: int
    algorithm_id: int
    window_start: dt.date


def run_micro_batch(input_dsn: str, day: dt.date, windows: Sequence[JobWindow]) -> dict[str, list[Any]]:
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
            "epid": pd.Series([window.epid for window in windows], dtype="int64"),
            "algorithm_id": pd.Series([window.algorithm_id for window in windows], dtype="int16"),
            "window_start": pd.Series([window.window_start for window in windows], dtype="datetime64[s]"),
            "day": pd.Timestamp(day).as_unit("s"),
        }
    )
    earliest = jobs.groupby("epid")["window_start"].min()
    viewings = input_tables.read_viewings(input_dsn, earliest.index.tolist(), earliest.dt.date.tolist(), day)
    begin = input_tables.viewings_begin(input_dsn)
    outcomes = compute_outcomes(jobs, viewings)
    return {
        "covered_from": [_covered_from(window.window_start, begin, day) for window in windows],
        "metrics": outcomes["metrics"].tolist(),
        "algorithm_version": outcomes["algorithm_version"].tolist(),
    }


def _covered_from(window_start: dt.date, viewings_begin: dt.date | None, day: dt.date) -> dt.date | None:
    """The first date of the window whose viewings still exist; None when none of them does."""
    if viewings_begin is None or viewings_begin > day:
        return None
    return max(window_start, viewings_begin)

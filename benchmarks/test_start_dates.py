"""The start dates of a drop: whole columns against row by row, tracked episodes in a list or in a set."""

import datetime as dt
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from benchmarks import inputs
from benchmarks.conftest import Measure
from benchmarks.sizes import FULL, Sizes
from episodes_assets.planning.drop import to_frame
from episodes_assets.planning.episode_set import EpisodeSet
from episodes_assets.planning.jobs import window_starts
from episodes_assets_tests.support.planning_reference import window_starts_reference

COLUMNS = ["epid", "algorithm_id", "premier_date", "start_date"]


def drop_frame(rows: int) -> pd.DataFrame:
    table = inputs.drop(rows, rows // 2).select(COLUMNS)
    return to_frame(table).astype({"epid": "int64", "algorithm_id": "int16"})


def as_dates(starts: pd.Series) -> list[dt.date | None]:
    return [None if pd.isna(start) else start.date() for start in starts]


@pytest.mark.parametrize("rows", FULL.start_date_rows)
@pytest.mark.parametrize("tracked", FULL.tracked)
@pytest.mark.parametrize("how", ["whole columns", "row-wise set", "row-wise list"])
def test_start_dates(measure: Measure, sizes: Sizes, how: str, tracked: int, rows: int) -> None:
    at, at_tracked = FULL.start_date_rows.index(rows), FULL.tracked.index(tracked)
    if at >= len(sizes.start_date_rows) or at_tracked >= len(sizes.tracked):
        pytest.skip("not at this size")
    rows = sizes.start_date_rows[at]
    tracked = sizes.tracked[at_tracked]
    drop = drop_frame(rows)
    state = inputs.epids(0, tracked)[np.random.default_rng(1).permutation(tracked)]
    known = set(state.tolist())
    if how == "row-wise list":
        # Each row costs the same, so a slice of the rows tells what all would take.
        rows = min(rows, sizes.list_rows // (1 if tracked == sizes.tracked[0] else 20))
        drop = drop.sample(rows, random_state=1)
        listed = state.tolist()
    agreed = drop.head(2_000)
    assert as_dates(window_starts(agreed, EpisodeSet.of(state))) == window_starts_reference(
        agreed.head(50), lambda: list(known)
    ) + window_starts_reference(agreed.iloc[50:], lambda: known)

    functions: dict[str, Callable[[], object]] = {
        "whole columns": lambda: window_starts(drop, EpisodeSet.of(state)),
        "row-wise set": lambda: window_starts_reference(drop, lambda: known),
        "row-wise list": lambda: window_starts_reference(drop, lambda: [epid for epid in listed]),  # noqa: C416
    }

    def timed() -> None:
        functions[how]()

    slow = how != "whole columns"
    measure(
        "start dates",
        f"{how}, {rows:,} rows, {tracked:,} tracked",
        timed,
        rounds=1 if slow else None,
        warm=not slow,
        how=how,
        rows=rows,
        tracked=tracked,
    )

"""Chunks have all jobs once, equal work, and long windows apart."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.planning.jobs import LONG_WINDOW_DAYS, LONG_WORK_DAYS, MOST_WINDOW_DAYS, into_chunks

DAY = dt.date(2018, 3, 10)


@pytest.mark.long
@given(st.lists(st.integers(1, 3000) | st.integers(1, 40), max_size=80), st.integers(1, 10))
def test_every_job_is_in_one_chunk_of_bounded_work(window_days: list[int], chunk_jobs: int) -> None:
    starts = [np.datetime64(DAY, "s") - np.timedelta64(days - 1, "D") for days in window_days]
    jobs = pd.DataFrame(
        {
            "epid": np.arange(len(starts)),
            "algorithm_id": np.zeros(len(starts), dtype=np.int16),
            "window_start": pd.Series(starts, dtype="datetime64[s]"),
        }
    )
    ordered, chunks = into_chunks(jobs, DAY, chunk_jobs)
    pd.testing.assert_frame_equal(ordered.sort_values("epid", ignore_index=True), jobs)
    assert chunks["chunk"].tolist() == list(range(len(chunks)))
    ends = (chunks["first_position"] + chunks["jobs"]).tolist()
    assert [0, *ends[:-1]] == chunks["first_position"].tolist() or not window_days
    assert ends[-1:] == ([len(jobs)] if window_days else [])
    assert chunks["priority"].is_monotonic_decreasing
    budget = chunk_jobs * LONG_WORK_DAYS
    for first, end, priority in zip(chunks["first_position"], ends, chunks["priority"], strict=True):
        some = ordered.iloc[first:end]
        days = (pd.Timestamp(DAY) - some["window_start"]).dt.days + 1
        is_long = days > LONG_WINDOW_DAYS
        assert is_long.nunique() == 1
        assert priority == (0 if is_long.all() else 1)
        assert some["epid"].is_monotonic_increasing
        work = days.clip(LONG_WORK_DAYS, MOST_WINDOW_DAYS)
        assert work.sum() - work.iloc[-1] <= budget or not is_long.all()
        assert len(some) <= chunk_jobs

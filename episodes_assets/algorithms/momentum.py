"""The algorithm `momentum`: whether an episode is watched more or less than a week ago.

It counts viewings by day; who watched, and for how long, is not looked at. It gets viewings that are cleaned,
ordered and inside their job's window: that, and checking what it returns, is `compute`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

Floats = npt.NDArray[Any]

WEEK = 7
DAYS = 2 * WEEK


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """Compare the last seven days with the seven before, as far as the window reaches.

    The slope is the least-squares line through the daily views of those of the last fourteen days
    that lie in the window, in views a day for each day; a window of one day has none.
    """
    job = viewings["job"].to_numpy()
    age = (jobs["day"].to_numpy()[job] - viewings["viewed_on"].to_numpy()) // np.timedelta64(1, "D")
    is_recent = age < DAYS
    cell = age[is_recent] * len(jobs) + job[is_recent]
    # Ages x jobs, newest first.
    daily = np.bincount(cell, minlength=DAYS * len(jobs)).reshape(DAYS, len(jobs)).astype(np.float64)
    days_in_window = ((jobs["day"] - jobs["window_start"]).dt.days + 1).clip(1, DAYS).to_numpy()
    return pd.DataFrame(
        {
            "views_last_7_days": daily[:WEEK].sum(axis=0).astype("int64"),
            "views_previous_7_days": daily[WEEK:].sum(axis=0).astype("int64"),
            "daily_slope": _slopes(daily, days_in_window),
        },
        index=jobs.index,
    )


def _slopes(daily: Floats, days_in_window: Floats) -> Floats:
    """Least-squares slopes of `daily` (ages x jobs) over the days of each job's own window."""
    ages = np.arange(DAYS)[:, None]
    # Time runs against age. The mean of n consecutive ages is (n - 1) / 2, their sum of squared
    # deviations n (n² - 1) / 12.
    time = np.where(ages < days_in_window, (days_in_window - 1) / 2 - ages, 0.0)
    spread = days_in_window * (days_in_window**2 - 1) / 12
    slopes = np.full(daily.shape[1], np.nan)
    np.divide((time * daily).sum(axis=0), spread, out=slopes, where=spread > 0)
    return slopes


ALGORITHM = Algorithm(
    algorithm_id=1,
    name="momentum",
    version="1",
    description="Views of the last 7 days against the 7 before, and the daily slope.",
    columns={
        "views_last_7_days": Metric.INTEGER,
        "views_previous_7_days": Metric.INTEGER,
        "daily_slope": Metric.REAL,
    },
    compute=compute,
    may_be_missing=("daily_slope",),
)

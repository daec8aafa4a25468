"""Asks to leave for one job."""

import os
import sys

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

POISONED = pd.Timestamp("2018-02-13")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"leaves_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("FIXED" not in os.environ)
    if poisoned.any():
        sys.exit("poisoned")
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=101,
    name="leaves",
    version="1",
    description="Asks to leave for one job.",
    columns={"leaves_count": Metric.INTEGER},
    compute=compute,
)

"""Ends its process for one job."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

POISONED = pd.Timestamp("2018-02-13")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"dies_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("FIXED" not in os.environ)
    if poisoned.any():
        os._exit(1)
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=95,
    name="dies",
    version="1",
    description="Ends its process for one job.",
    columns={"dies_count": Metric.INTEGER},
    compute=compute,
)

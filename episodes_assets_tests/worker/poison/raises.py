"""Raises for one job."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

POISONED = pd.Timestamp("2018-02-13")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"raises_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("FIXED" not in os.environ)
    if poisoned.any():
        raise OSError("poisoned")  # as an outage would, and yet it is the job's own fault
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=90,
    name="raises",
    version="1",
    description="Raises for one job.",
    columns={"raises_count": Metric.INTEGER},
    compute=compute,
)

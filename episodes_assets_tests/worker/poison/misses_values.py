"""Returns no value for one job where there must be one."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

POISONED = pd.Timestamp("2018-02-13")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"misses_values_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("FIXED" not in os.environ)
    metrics["misses_values_count"] = counts.astype("Int64").mask(poisoned)
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=94,
    name="misses_values",
    version="1",
    description="Returns no value for one job where there must be one.",
    columns={"misses_values_count": Metric.INTEGER},
    compute=compute,
)

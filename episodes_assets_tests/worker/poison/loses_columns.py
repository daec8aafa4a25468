"""Returns other columns than it declares for one job."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

POISONED = pd.Timestamp("2018-02-13")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"loses_columns_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("FIXED" not in os.environ)
    if poisoned.any():
        return metrics.rename(columns={"loses_columns_count": "something"})
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=93,
    name="loses_columns",
    version="1",
    description="Returns other columns than it declares for one job.",
    columns={"loses_columns_count": Metric.INTEGER},
    compute=compute,
)

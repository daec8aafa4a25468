"""Wants all the memory there is for one job."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

POISONED = pd.Timestamp("2018-02-13")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"eats_memory_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("MENDED" not in os.environ)
    while poisoned.any():
        metrics = pd.concat([metrics, metrics])
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=92,
    name="eats_memory",
    version="1",
    description="Wants all the memory there is for one job.",
    columns={"eats_memory_count": Metric.INTEGER},
    compute=compute,
)

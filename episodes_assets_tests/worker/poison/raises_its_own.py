"""Raises for one job what only this module knows, and what cannot be unpickled."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

POISONED = pd.Timestamp("2018-02-13")


class OwnError(Exception):
    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what} {code}")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"raises_its_own_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("FIXED" not in os.environ)
    if poisoned.any():
        raise OwnError("poisoned", 7)
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=100,
    name="raises_its_own",
    version="1",
    description="Raises for one job what only this module knows, and what cannot be unpickled.",
    columns={"raises_its_own_count": Metric.INTEGER},
    compute=compute,
)

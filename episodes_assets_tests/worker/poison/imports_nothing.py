"""Does not import: a library is missing."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

if "FIXED" not in os.environ:
    import a_library_that_nobody_installed  # type: ignore[import-not-found]  # noqa: F401


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    return pd.DataFrame({"imports_nothing_count": counts})


ALGORITHM = Algorithm(
    algorithm_id=96,
    name="imports_nothing",
    version="1",
    description="Does not import: a library is missing.",
    columns={"imports_nothing_count": Metric.INTEGER},
    compute=compute,
)

"""What an algorithm is: what its module declares, and the function that computes its metrics.

Finding and loading algorithms is `registry`; calling them is `compute`.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY

import pandas as pd
from pydantic.dataclasses import dataclass

from episodes_assets.algorithms.declaration import STRICT, Declaration, Metric

__all__ = ["MAX_SECONDS_WATCHED", "Algorithm", "Metric"]

MAX_SECONDS_WATCHED = 86_400


@dataclass(frozen=True, config=STRICT)
class Algorithm(Declaration):
    """An analysis of the viewings of many episodes at once.

    A module assigns it to `ALGORITHM` with every argument but `compute` written as a literal, since all
    processes but those that compute read it from the module's text (`registry.py`).

    Attributes:
        compute: `(viewings, jobs) -> metrics`, for whole columns.

            `viewings` has a row for each viewing inside its job's window: `job` (int64, the row of
            `jobs`), `viewer_id` (int64), `viewed_on` (datetime64[s], the UTC date),
            `seconds_watched` (int64, 0 to 86,400), `completed` (bool); ordered by job and time.

            `jobs` has a row for each job, numbered from 0: `window_start` and `day` (datetime64[s],
            both included).

            `metrics` has the jobs' index and one column for each of `columns`; a job without
            viewings has a row as well, with a missing value where nothing can be said.
    """

    _: KW_ONLY
    compute: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]

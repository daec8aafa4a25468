"""What an algorithm is."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

MAX_SECONDS_WATCHED = 86_400


class Metric(StrEnum):
    """The type of a metric column."""

    INTEGER = "integer"
    REAL = "real"


@dataclass(frozen=True)
class Algorithm:
    """An analysis of the viewings of many episodes at once.

    Attributes:
        algorithm_id: The number by which catalogue rows ask for it.
        name: A lower-case identifier; also the name of its view for consumers.
        version: Changed by its author whenever its results change.
        description: One sentence on what it tells.
        columns: Its metric columns and their types, in the order consumers see them.
        compute: `(viewings, jobs) -> metrics`, for whole columns.

            `viewings` has a row for each viewing inside its job's window: `job` (int64, the row of
            `jobs`), `viewer_id` (int64), `viewed_on` (datetime64[s], the UTC date),
            `seconds_watched` (int64, 0 to 86,400), `completed` (bool); ordered by job and time.

            `jobs` has a row for each job, numbered from 0: `window_start` and `day` (datetime64[s],
            both included).

            `metrics` has the jobs' index and one column for each of `columns`; a job without
            viewings has a row as well, with a missing value where nothing can be said.
        may_be_missing: The columns in which a value may be missing. Anywhere else a missing value is a
            failure of its job, as an infinite one is everywhere.
        timeout_seconds: How long one job may take by itself; None for EPISODES_JOB_TIMEOUT_SECONDS.
        import_error: Why the module cannot be imported, with its traceback; None when it can. Such an
            algorithm has no columns, and each of its jobs fails with this.
    """

    algorithm_id: int
    name: str
    version: str
    description: str
    columns: Mapping[str, Metric]
    compute: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
    may_be_missing: Collection[str] = ()
    timeout_seconds: float | None = None
    import_error: str | None = None

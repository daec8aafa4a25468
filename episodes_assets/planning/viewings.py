"""The columns of a viewing, the mark of one that cannot be read, and since when viewings are complete.

A contract between the input, the lake and the algorithms; the pure rule for `covered_from`: a date with far
fewer viewings than are usual covers nothing, so a few wrong times (outliers) do not extend what counts as
complete; and the numbers of the rows that ranges of them have, such as those of an episode. Reading viewings
is `input/reading.py`, storing them `lake/viewings.py`.
"""

import datetime as dt
from collections.abc import Sequence
from typing import LiteralString

import numpy as np
import numpy.typing as npt

from episodes_assets.days import ONE_DAY

COUNTED = 50
USUAL_DATES = 28
LEAST_SHARE = 5
DENSE_GAP = 3
SPARSE_GAP = 31


def covered_since(dates: Sequence[tuple[dt.date, int]], day: dt.date) -> dt.date | None:
    """The first date of those that lie before a day, or on it, without a gap; None when there is none.

    Args:
        dates: Dates with viewings, the newest first, and how many each holds, counted up to `COUNTED`; those
            after the day only say what is usual.
        day: The last date that matters.
    """
    near = sorted(count for date, count in dates if abs(date - day) <= USUAL_DATES * ONE_DAY)
    usual = near[(len(near) - 1) * 3 // 4] if near else 1
    gap = DENSE_GAP if usual >= COUNTED else SPARSE_GAP
    begin, reached = None, day + ONE_DAY
    for date, count in dates:
        if date > day or count * LEAST_SHARE < usual:
            continue
        if reached - date > (gap + 1) * ONE_DAY:
            break
        begin = reached = date
    return begin


# What stands in place of a `completed` that is neither true nor false.
UNREADABLE: LiteralString = "completed_as_found"
# What readers get of a viewing beside its episode and its date, which are known without reading them.
READ_COLUMNS = ("viewer_id", "seconds_watched", "completed")
COLUMNS = ("epid", "viewed_on", *READ_COLUMNS)


def row_numbers(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers `starts[0]`, `starts[0] + 1` and so on, `counts[0]` of them, then those of the next.

    Args:
        starts: The first row of each range (int64).
        counts: Its rows (int64), which may be none.
    """
    numbers: npt.NDArray[np.int64] = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return numbers + np.arange(len(numbers))

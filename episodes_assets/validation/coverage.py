"""From which date on viewings are there: what `covered_from` of a result goes by.

The input deletes old viewings, so what was left of them when the lake was begun starts at some date. The
oldest viewing does not tell which: one with a broken clock lies in 1970 and says nothing of the dates
between. So dates are gone through backwards from the day that is worked, and coverage reaches as far back as
viewings go without a gap:

- A date counts when it holds at least a fifth of what its neighbours usually hold: the upper quartile of the
  dates up to `USUAL_DATES` around the day that are known, each counted up to `COUNTED`. So ten viewings are
  enough for any date of any service. Less are stray viewings, not a date whose viewings are there.
- Where dates usually hold `COUNTED` or more, more than `DENSE_GAP` dates in a row do not lack viewings by
  chance, and what lies before them is not covered, be it thousands of viewings at one wrong date. Where there
  are few viewings, as in a sample, `SPARSE_GAP` dates may lie between two with viewings.

Where the rule errs, it says that less is covered than is, but for one case: junk in plausible numbers right
beside real viewings cannot be told from them.
"""

import datetime as dt
from collections.abc import Sequence

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

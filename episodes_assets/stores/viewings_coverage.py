"""From which date on the input still holds the viewings: what `covered_from` of a result goes by.

The input deletes old viewings, so what is left of them begins at some date. The oldest viewing does not tell
which: one with a broken clock lies in 1970, or at `-infinity`, and says nothing of the dates between. So
dates are gone through backwards from the day that is worked, and coverage reaches as far back as viewings go
without a gap:

- A date counts when it holds at least a fifth of what its neighbours usually hold: the upper quartile of the
  dates up to `USUAL_DATES` before and after the day, each counted up to `COUNTED`. So ten viewings are enough
  for any date of any service. Less are stray viewings, not a date whose viewings are there.
- Where dates usually hold `COUNTED` or more, more than `DENSE_GAP` dates in a row do not lack viewings by
  chance, and what lies before them is not covered, be it thousands of viewings at one wrong date. Where there
  are few viewings, as in a sample, `SPARSE_GAP` dates may lie between two with viewings.

Where the rule errs, it says that less is covered than is, but for one case: junk in plausible numbers right
beside real viewings cannot be told from them. It takes two looks into the index on `viewed_at` for each date
of the longest window, of `COUNTED` rows at most, however many viewings there are.
"""

import datetime as dt
from collections.abc import Sequence
from typing import LiteralString

from episodes_assets.databases.arrow import read_arrow
from episodes_assets.days import ONE_DAY
from episodes_assets.stores.input_columns import InputColumns, input_columns

COUNTED = 50
USUAL_DATES = 28
LEAST_SHARE = 5
DENSE_GAP = 3
SPARSE_GAP = 31


def _read_dates(columns: InputColumns) -> LiteralString:
    """The dates with viewings around a day and before it, the newest first, with the viewings of each."""

    def newest_between(first: LiteralString, last: LiteralString) -> LiteralString:
        newest = columns.date_of("viewings", "viewed_at", "max(viewings.viewed_at)")
        within = columns.is_within("viewings", "viewed_at", first, last)
        return f"(SELECT {newest} FROM viewings WHERE {within})"  # noqa: S608  literals alone

    before = newest_between("(viewed_on - {gap} - 1)", "(viewed_on - 1)")
    on_date = columns.is_within("viewings", "viewed_at", "viewed_on", "viewed_on")
    return f"""
        WITH RECURSIVE dates (viewed_on) AS (
            SELECT {newest_between("({day}::date - {gap})", "({day}::date + {around})")}
            UNION ALL
            SELECT {before} FROM dates
            WHERE viewed_on IS NOT NULL
                AND (viewed_on > {{since}}::date OR viewed_on > {{day}}::date - {{around}})
        )
        SELECT viewed_on,
            (
                SELECT count(*) FROM (SELECT FROM viewings WHERE {on_date} LIMIT {{counted}}) AS those
            ) AS viewings
        FROM dates WHERE viewed_on IS NOT NULL ORDER BY viewed_on DESC
    """  # noqa: S608  literals alone


def viewings_begin(dsn: str, day: dt.date, since: dt.date) -> dt.date | None:
    """The UTC date from which on the input holds the viewings up to a day; None when it holds none of then.

    Args:
        dsn: The input database.
        day: The last date that matters.
        since: The first date that matters; of those before nothing need be known.

    Raises:
        InputUnreadable: If the columns cannot be read.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    found = read_arrow(
        dsn,
        _read_dates(input_columns(dsn)),
        is_ours=False,
        day=day,
        since=since,
        gap=SPARSE_GAP,
        around=USUAL_DATES,
        counted=COUNTED,
    )
    dates, counts = found["viewed_on"].to_pylist(), found["viewings"].to_pylist()
    return covered_since(list(zip(dates, counts, strict=True)), day)


def covered_since(dates: Sequence[tuple[dt.date, int]], day: dt.date) -> dt.date | None:
    """The first date of those that lie before a day, or on it, without a gap; None when there is none.

    Args:
        dates: Dates with viewings, the newest first, and how many each holds, counted up to `COUNTED`; also
            some after the day, which say what is usual.
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

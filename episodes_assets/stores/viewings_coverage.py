"""How far back the input still holds viewings: where a lake begins.

It takes two looks into the index on `viewed_at` for each date of the time asked for, of `COUNTED` rows at
most, however many viewings there are. What counts as held is decided in `planning/viewings.py`.
"""

import datetime as dt
from typing import LiteralString

from episodes_assets.planning.viewings import COUNTED, SPARSE_GAP, USUAL_DATES, covered_since
from episodes_assets.postgres.arrow import read_arrow
from episodes_assets.stores.input_columns import InputColumns, input_columns


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

"""The input database, read only: a day as of one moment, which days have a drop, how far back viewings reach.

A day is its drop, in parts that end between two episodes, and its viewings; they may also only be counted. A
day without a drop gets the error that says which days beside it have one.

A drop's next part is read ahead (prefetch) while one is worked on.

How far back takes two looks into the index on `viewed_at` for each date of the time asked for, of `COUNTED`
rows at most, however many viewings there are; what counts as held is decided in `planning/viewings.py`. How
each column is read exactly is `columns`; filling an input database is `loading`.
"""

import datetime as dt
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import LiteralString, TypeVar

import pandas as pd
import pyarrow as pa

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import DropNotArrived
from episodes_assets.input.columns import InputColumns, forget_columns, input_columns
from episodes_assets.planning.drop import AS_FOUND, DROP_PART_ROWS, VALIDATED, to_frame, whole_episodes
from episodes_assets.planning.viewings import COUNTED, SPARSE_GAP, UNREADABLE, USUAL_DATES, covered_since
from episodes_assets.postgres.arrow import RepeatableRead, read_arrow, repeatable_read
from episodes_assets.postgres.connect import connect_to_input

_EXTREMES: tuple[LiteralString, LiteralString] = ("min", "max")
# A day's end is the beginning of the next day, which Python's last date does not have.
_LAST_DATE = dt.date.max - ONE_DAY


def _read_drop(columns: InputColumns) -> LiteralString:
    found = [
        f"'{name}', {columns.as_found('episodes', name)}"
        for name in VALIDATED
        if columns.as_found("episodes", name) != "NULL::text"
    ]
    as_found = f"nullif(json_strip_nulls(json_build_object({', '.join(found)}))::text, '{{{{}}}}')"
    return f"""
        SELECT {columns.value("episodes", "epid")} AS epid,
            {columns.value("episodes", "algorithm_id")} AS algorithm_id,
            {columns.text_shown("series")} AS series, {columns.number_shown("season")} AS season,
            {columns.number_shown("episode")} AS episode, {columns.text_shown("title")} AS title,
            {columns.value("episodes", "premier_date")} AS premier_date,
            {columns.value("episodes", "start_date")} AS start_date,
            {as_found if found else "NULL::text"} AS {AS_FOUND}
        FROM episodes WHERE {columns.is_within("episodes", "batch_date", "{day}::date", "{day}::date")}
        ORDER BY epid, algorithm_id
    """  # noqa: S608  literals alone


def _read_day_of_viewings(columns: InputColumns) -> LiteralString:
    """Without ORDER BY: other teams own the server, so the lake sorts the rows and not the input."""
    return f"""
        SELECT {columns.value("viewings", "epid")} AS epid,
            {columns.value("viewings", "viewer_id")} AS viewer_id,
            {columns.value("viewings", "viewed_at")} AS viewed_at,
            {columns.value("viewings", "seconds_watched")}::bigint AS seconds_watched,
            {columns.value("viewings", "completed")} AS completed,
            {columns.as_found("viewings", "completed")} AS {UNREADABLE}
        FROM viewings WHERE {columns.is_within("viewings", "viewed_at", "{day}::date", "{day}::date")}
    """  # noqa: S608  literals alone


class DayReading:
    """One day of the input, read in the one transaction that `reading` has opened.

    Attributes:
        day: The day.
        rows: How many rows of the drop have been received so far.
    """

    def __init__(self, transaction: RepeatableRead, columns: InputColumns, day: dt.date) -> None:
        self.day = day
        self.rows = 0
        self._transaction = transaction
        self._columns = columns

    def has_drop(self) -> bool:
        """Whether there is any row of the day's drop."""
        within = self._columns.is_within("episodes", "batch_date", "{day}::date", "{day}::date")
        query: LiteralString = f"SELECT 1 AS found FROM episodes WHERE {within} LIMIT 1"  # noqa: S608
        with self._transaction.stream(query, day=self.day) as batches:
            return bool(batches.read_all().num_rows)

    @contextmanager
    def viewings(self) -> Iterator[pa.RecordBatchReader]:
        """The day's viewings, in no order: `lake.viewings.schema_of` has the columns."""
        with self._transaction.stream(_read_day_of_viewings(self._columns), day=self.day) as batches:
            yield batches

    def drop(self) -> Iterator[pd.DataFrame]:
        """The day's drop in parts, ordered by epid and algorithm, every episode in one part.

        Yields:
            The columns of `planning.drop.SCHEMA`, and `AS_FOUND`; nothing when there is no drop of that day.
        """
        with self._transaction.stream(_read_drop(self._columns), day=self.day) as batches:
            for part in whole_episodes(self._counted(batches), DROP_PART_ROWS):
                yield to_frame(part)

    def _counted(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows += batch.num_rows
            yield batch


_END = object()
T = TypeVar("T")


@contextmanager
def read_ahead(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """Prefetch: the same items, such as a drop's parts; a thread fetches the next one meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        iterator = iter(items)
        following = thread.submit(next, iterator, _END)

        def fetched() -> Iterator[T]:
            nonlocal following
            while (item := following.result()) is not _END:
                following = thread.submit(next, iterator, _END)
                yield item  # type: ignore[misc]

        try:
            yield fetched()
        finally:
            wait([following])
            if isinstance(iterator, Generator):  # release the connection that it reads from
                iterator.close()


@contextmanager
def reading(dsn: str, day: dt.date) -> Iterator[DayReading]:
    """Read a day in one read-only transaction of the isolation level repeatable read.

    Raises:
        InputUnreadable: If the columns cannot be read.
        StatementFailed: If a view cannot convert a row.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away inside the block.
    """
    columns = input_columns(dsn)
    try:
        with repeatable_read(dsn) as transaction:
            yield DayReading(transaction, columns, day)
    except Exception:
        forget_columns(dsn)  # a type may have changed
        raise


def count_viewings(dsn: str, days: Sequence[dt.date]) -> dict[dt.date, int]:
    """How many viewings the input has of some days.

    Raises:
        InputUnreadable: If the columns cannot be read.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    is_there = input_columns(dsn).is_within("viewings", "viewed_at", "day", "day")
    with connect_to_input(dsn) as connection:
        found = connection.execute(
            "SELECT day, (SELECT count(*) FROM viewings"  # noqa: S608  literals alone
            f" WHERE {is_there}) FROM unnest(%s::date[]) AS day",
            [list(days)],
        ).fetchall()
    return dict(found)


def days_with_drop(dsn: str, days: Sequence[dt.date]) -> set[dt.date]:
    """Those of some days whose drop has any row in the input.

    Raises:
        InputUnreadable: If the columns cannot be read.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    is_there = input_columns(dsn).is_within("episodes", "batch_date", "day", "day")
    with connect_to_input(dsn) as connection:
        found = connection.execute(
            "SELECT day FROM unnest(%s::date[]) AS day"  # noqa: S608  literals alone
            f" WHERE EXISTS (SELECT FROM episodes WHERE {is_there})",
            [list(days)],
        ).fetchall()
    return {day for (day,) in found}


def drop_not_arrived(dsn: str, day: dt.date) -> DropNotArrived:
    """The error for a drop that is missing, naming the drops before and after it.

    Raises:
        InputUnreadable: If the columns cannot be read.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    before, after = drops_beside(dsn, day)
    seen = [f"the newest one before it is of {before}"] if before else []
    seen += [f"the next one after it is of {after}"] if after else []
    return DropNotArrived(
        f"the drop of {day} has not arrived in the input database, "
        f"{'where ' + ' and '.join(seen) if seen else 'which has none of any other day either'}",
        "try again later, or load it with `episodes input load` or `episodes input generate`; if it was "
        "deleted there before it was taken, only its source can bring it back",
    )


def drops_beside(dsn: str, day: dt.date) -> tuple[dt.date | None, dt.date | None]:
    """The newest drop before a day and the next one after it; None where there is none.

    It does not follow from either that the day's own drop was there and is gone: drops arrive in any order,
    and one row with a mistyped date counts as a drop. `infinity` and dates that Python lacks are left out.

    Raises:
        InputUnreadable: If the columns cannot be read.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    columns = input_columns(dsn)
    first, last = (
        columns.date_of("episodes", "batch_date", f"{which}(episodes.batch_date)") for which in _EXTREMES
    )
    before = columns.is_within("episodes", "batch_date", "%(min)s::date", "%(day)s::date - 1")
    after = columns.is_within("episodes", "batch_date", "%(day)s::date + 1", "%(max)s::date")
    with connect_to_input(dsn) as connection:
        row = connection.execute(
            f"SELECT (SELECT {last} FROM episodes WHERE {before}),"  # noqa: S608  literals alone
            f" (SELECT {first} FROM episodes WHERE {after})",
            {"day": day, "min": dt.date.min, "max": _LAST_DATE},
        ).fetchone()
    return (row[0], row[1]) if row else (None, None)


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
    """The first UTC date of the period up to a day whose viewings the input holds; None if it holds none.

    Args:
        dsn: The input database.
        day: The last date of the period.
        since: The earliest date of interest; dates before it need not be searched.

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

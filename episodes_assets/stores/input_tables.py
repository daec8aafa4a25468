"""Reading the input database, which is other teams' and is never written by the pipeline."""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import LiteralString

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.databases.arrow import read_arrow, stream_arrow
from episodes_assets.databases.connections import connect_to_input
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import DropNotArrived, ViewingUnreadable
from episodes_assets.stores import drop_table
from episodes_assets.stores.episode_parts import DROP_PART_ROWS, whole_episodes
from episodes_assets.stores.input_columns import InputColumns, input_columns
from episodes_assets.validation.drop import AS_FOUND, VALIDATED

_UNREADABLE: LiteralString = "unreadable"
_SHOWN_CHARACTERS = 80
_EXTREMES: tuple[LiteralString, LiteralString] = ("min", "max")
# The end of a day is the beginning of the next, which Python's last date lacks.
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


def _read_viewed(columns: InputColumns) -> LiteralString:
    epid = columns.value("viewings", "epid")
    return f"""
        SELECT DISTINCT {epid} AS epid FROM viewings
        WHERE {columns.is_within("viewings", "viewed_at", "{day}::date", "{day}::date")}
            AND ({epid}) IS NOT NULL
    """  # noqa: S608  literals alone


def _read_viewings(columns: InputColumns) -> LiteralString:
    return f"""
        SELECT wanted.epid, {columns.value("viewings", "viewer_id")} AS viewer_id,
            {columns.value("viewings", "viewed_at")} AS viewed_at,
            {columns.value("viewings", "seconds_watched")} AS seconds_watched,
            {columns.value("viewings", "completed")} AS completed,
            {columns.as_found("viewings", "completed")} AS {_UNREADABLE}
        FROM unnest({{epids}}::bigint[], {{since}}::date[]) AS wanted (epid, since)
        JOIN viewings ON viewings.epid = {columns.as_epid("wanted.epid")}
            AND {columns.is_within("viewings", "viewed_at", "wanted.since", "{until}::date")}
        ORDER BY wanted.epid, viewings.viewed_at
    """  # noqa: S608  literals alone


class DropReading:
    """A day's drop, read once in parts by iterating over it.

    Attributes:
        rows: Rows that have come from the database so far, counted before they are cut or converted.
    """

    def __init__(self, dsn: str, day: dt.date) -> None:
        self._dsn = dsn
        self._day = day
        self.rows = 0

    def __iter__(self) -> Iterator[pd.DataFrame]:
        """The parts, ordered by epid and algorithm, every episode in one part.

        Yields:
            The columns of `drop_table.SCHEMA`, and `AS_FOUND`; nothing when there is no drop of that day.

        Raises:
            InputUnreadable: If the columns cannot be read.
            DatabaseUnreachable: If the server does not answer or refuses, or goes away.
        """
        query = _read_drop(input_columns(self._dsn))
        with stream_arrow(self._dsn, query, is_ours=False, day=self._day) as batches:
            for part in whole_episodes(self._counted(batches), DROP_PART_ROWS):
                yield drop_table.to_frame(part)

    def _counted(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows += batch.num_rows
            yield batch


def read_viewed(dsn: str, day: dt.date) -> npt.NDArray[np.int64]:
    """Ascending epids that were viewed on a UTC day."""
    query = _read_viewed(input_columns(dsn))
    viewed = read_arrow(dsn, query, is_ours=False, day=day)["epid"].to_numpy()
    return np.sort(viewed.astype(np.int64))


def days_with_drop(dsn: str, days: Sequence[dt.date]) -> set[dt.date]:
    """Those of some days of which the input has any row.

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
    """What is said of a drop that is not there, with what is there of other days.

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
        "deleted there before a snapshot was taken, only its source can bring it back",
    )


def drops_beside(dsn: str, day: dt.date) -> tuple[dt.date | None, dt.date | None]:
    """The newest drop before a day and the next one after it; None where there is none.

    Neither says that the day's own drop was there and is gone: drops arrive in any order, and a single row
    with the date of a typing error is a drop as well. `infinity` and dates that Python lacks are left out.

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


def read_viewings(
    dsn: str, epids: npt.NDArray[np.int64], since: npt.NDArray[np.datetime64], until: dt.date
) -> Iterator[pa.RecordBatch]:
    """The viewings of many episodes, each from a date of its own, ordered by epid and time.

    Args:
        dsn: The input database.
        epids: Distinct episodes.
        since: For each episode, the first UTC date wanted.
        until: The last UTC date wanted.

    Yields:
        `epid` (int64), `viewer_id` (int64, or text), `viewed_at` (timestamp[us], UTC), `seconds_watched`
        (an integer), `completed` (bool); at least one batch, which may be empty.

    Raises:
        InputUnreadable: If the columns cannot be read.
        ViewingUnreadable: If it cannot be told of a viewing whether it was completed.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    wanted = {"epids": epids.tolist(), "since": since.astype("datetime64[D]").tolist(), "until": until}
    query = _read_viewings(input_columns(dsn))
    with stream_arrow(dsn, query, is_ours=False, **wanted) as batches:
        yield _require_readable(pa.RecordBatch.from_pylist([], batches.schema))
        for batch in batches:
            yield _require_readable(batch)


def _require_readable(viewings: pa.RecordBatch) -> pa.RecordBatch:
    """The viewings without the column of what could not be read, which must be empty."""
    found = viewings[_UNREADABLE]
    if found.null_count < len(found):
        row = int(pc.index(found.is_valid(), True).as_py())
        raise ViewingUnreadable(
            f"viewings.completed of epid {viewings['epid'][row]} at {viewings['viewed_at'][row]} holds"
            f" {found[row].as_py()[:_SHOWN_CHARACTERS]!r}, which is neither true nor false",
            "have it corrected in the input",
        )
    return viewings.drop_columns([_UNREADABLE])

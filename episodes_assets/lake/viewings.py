"""The lake's viewings: each one once, in the file of the UTC date on which it was viewed.

A file is ordered by `epid` and `viewed_at` and cut into small row groups, so that the jobs of a chunk read
little else than their own. A day without any viewing has an empty file, which records that it was taken.
This module orders, writes and reads them, for many episodes at once. Which days are taken, and when, is
decided in `taking.py`.
"""

import datetime as dt
import errno
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets import failures
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import DiskFull, LakeMismatch, LakeMissing, OutOfMemory, ViewingUnreadable
from episodes_assets.lake.day_file import ROW_GROUP_ROWS, Footer, FooterCache, LakeFile
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import TableVersion
from episodes_assets.planning.viewings import (
    COLUMNS,
    COUNTED,
    READ_COLUMNS,
    UNREADABLE,
    covered_since,
    row_numbers,
)

NAME = "viewings"
# By episode and time for readers; by all other columns so that equal viewings make equal files.
ORDER = ("epid", "viewed_at", "viewer_id", "seconds_watched", "completed", UNREADABLE)
# About 100 MB while it is computed. An episode with more viewings than that is computed by itself.
PART_VIEWINGS = 1_000_000
# Of a file, so many rows are decoded at once, about 4 MB; those that are not wanted are released.
RUN_ROWS = 8 * ROW_GROUP_ROWS
# About 100 MB when they are ordered in memory. More are ordered by DuckDB, which spills beyond SORT_MEMORY.
IN_MEMORY_VIEWINGS = 1_000_000
SORT_MEMORY = "300MB"
_SHOWN_CHARACTERS = 80
# Half the bytes of dictionaries, and half the time to read: most numbers occur once in a row group.
_PACKED = "DELTA_BINARY_PACKED"
_PACKED_TYPES = (pa.int64(), pa.timestamp("us", "UTC"))


def schema_of(viewer_id: pa.DataType) -> pa.Schema:
    """The columns of the table: viewers are identified by a number, or by text where the input has text."""
    return pa.schema(
        {
            "epid": pa.int64(),
            "viewer_id": pa.string() if pa.types.is_string(viewer_id) else pa.int64(),
            "viewed_at": pa.timestamp("us", "UTC"),
            "seconds_watched": pa.int64(),
            "completed": pa.bool_(),
            UNREADABLE: pa.string(),
        }
    )


@dataclass(frozen=True)
class DayOfViewings:
    """The viewings that were read of a day.

    Attributes:
        file: The file with them, which is not committed yet.
        schema: Its columns.
        episodes: Distinct episodes that were viewed, ascending.
    """

    file: LakeFile
    schema: pa.Schema
    episodes: npt.NDArray[np.int64]


class Viewings(LakeTable):
    """The table of viewings in a lake."""

    def __init__(self, lake_url: str) -> None:
        super().__init__(lake_url, NAME)
        self._footers = FooterCache()

    def write(self, day: dt.date, viewings: pa.RecordBatchReader) -> DayOfViewings:
        """Order a day's viewings and write them to a file, in bounded memory however many they are.

        Args:
            day: The day.
            viewings: The columns of `schema_of`, in any order of rows.

        Raises:
            LakeMismatch: If the lake has viewer ids of another type.
            SystemFailure: If it cannot be written: a full disk, a missing right and the like.
        """
        schema = schema_of(viewings.schema.field("viewer_id").type)
        newest = self.newest()
        if newest is not None and newest.schema.field("viewer_id") != schema.field("viewer_id"):
            raise LakeMismatch(
                f"viewings.viewer_id of the input is read as {schema.field('viewer_id').type}, but "
                f"{self.shown} holds it as {newest.schema.field('viewer_id').type}",
                "put a view in the table's place that has viewer_id as it was before",
            )
        packed = {field.name: _PACKED for field in schema if field.type in _PACKED_TYPES}
        with (
            self.writer(day, schema, packed) as writer,
            tempfile.TemporaryDirectory(prefix="episodes-sort-") as folder,
        ):
            episodes = []
            for batch in _ordered(viewings, folder):
                writer.write([batch.cast(schema)])
                episodes.append(pc.unique(batch["epid"].drop_null()))
            found = pa.chunked_array(episodes, pa.int64()).unique().to_numpy()
            return DayOfViewings(writer.finish(), schema, found)

    def read(
        self,
        version: int,
        epids: npt.NDArray[np.int64],
        since: npt.NDArray[np.datetime64],
        until: dt.date,
    ) -> Iterator[tuple[int, pa.Table]]:
        """The viewings of many episodes, each from a date of its own.

        Args:
            version: The table's.
            epids: Distinct episodes, ascending; at least one.
            since: For each episode, the first UTC date wanted (datetime64[D]).
            until: The last UTC date wanted.

        Yields:
            Parts of at most `PART_VIEWINGS` rows, or of one episode. Each has all viewings of its episodes,
            ordered by epid and time: the last episode of the part, and the columns `COLUMNS`, of which
            `viewed_on` is the UTC date (timestamp[s]). Together the parts have all episodes, those without
            any viewing included. While one is put together, no more is held than twice its rows and
            `RUN_ROWS`, however far apart its episodes lie.

        Raises:
            LakeMissing: If there is no such version.
            LakeDamaged: If a file is gone, was cut or changed.
            ViewingUnreadable: If the input's `completed` of a viewing could not be read.
            SystemFailure: If the lake cannot be reached.
        """
        table = self.at(version)
        since = since.astype("datetime64[D]")
        found = []
        for file in table.between(since.min().item(), until):
            is_wanted = since <= np.datetime64(file.day, "D")
            found.append(_find(self, self._footer(file), epids, is_wanted))
        days = np.array([each.file.day for each in found], "datetime64[s]")
        counts = np.array([each.counts for each in found], np.int64).reshape(len(found), len(epids))
        for begin, end in _cut(counts.sum(axis=0), PART_VIEWINGS):
            runs = [run for each in found for run in each.read(self, self._footer(each.file), begin, end)]
            yield (
                int(epids[end - 1]),
                _part(table.schema, runs, epids[begin:end], days, counts[:, begin:end]),
            )

    def episodes_of(self, version: int, day: dt.date) -> npt.NDArray[np.int64]:
        """The ascending epids that were viewed on a day that was taken.

        Raises:
            LakeMissing: If there is no such version, or it lacks the day.
            LakeDamaged: If the day's file is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """
        with self.open(require_day(self.at(version), day, self.shown)) as file:
            each = [pc.unique(file.read_row_group(n, ["epid"])["epid"]) for n in range(file.num_row_groups)]
        epids: npt.NDArray[np.int64] = pa.chunked_array(each, pa.int64()).unique().drop_null().to_numpy()
        return epids

    def given_up(self, version: int) -> dict[dt.date, int]:
        """How many viewings days have fewer of, as they were accepted as lost in the commits up to a version.

        Raises:
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        found: Counter[dt.date] = Counter()
        for commit in self.commits():
            if commit.number <= version:
                found.update({day: max(gone - new, 0) for day, (gone, new) in commit.lost.items()})
        return found

    def count(self, file: LakeFile) -> int:
        """The rows that a file holds by its own footer, whatever the table's log says.

        Raises:
            LakeDamaged: If it is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """
        return int(self._footer(file).metadata.num_rows)

    def _footer(self, file: LakeFile) -> Footer:
        """A file's footer, which is cached."""
        footer = self._footers.get(file)
        if footer is None:
            with self.open(file) as opened:
                footer = Footer.of(file, opened.metadata, optional=UNREADABLE)
            self._footers.add(footer)
        return footer


def require_day(version: TableVersion, day: dt.date, shown: str) -> LakeFile:
    """A day's file.

    Raises:
        LakeMissing: If the day was not taken.
    """
    if day not in version.files:
        raise LakeMissing(
            f"{shown} has no viewings of {day} in its version {version.number}",
            f"materialise input_viewings of {day}",
        )
    return version.files[day]


def covered_from(
    version: TableVersion, day: dt.date, given_up: Mapping[dt.date, int] | None = None
) -> dt.date | None:
    """The first date of the period up to a day whose viewings the version has; None if it has none.

    Later days do not count, so that a day which is computed again has the same coverage. A lake with only a
    part of another one's viewings states the coverage of that one.

    Args:
        version: The version.
        day: The last day of the period.
        given_up: By day, viewings that count as if the version had them as well.
    """
    more = given_up or {}
    if day in version.covered:
        return version.covered[day]
    taken = []
    date = day
    while date in version.files:  # a day that was not taken is unknown, and not one without viewings
        taken.append((date, min(version.files[date].rows + more.get(date, 0), COUNTED)))
        date -= ONE_DAY
    return covered_since([(date, rows) for date, rows in taken if rows], day)


def _ordered(viewings: pa.RecordBatchReader, folder: str) -> Iterator[pa.RecordBatch]:
    """The viewings in `ORDER`, missing values last; ordered in memory up to `IN_MEMORY_VIEWINGS`."""
    first: list[pa.RecordBatch] = []
    rows = 0
    for batch in viewings:
        first.append(batch)
        rows += batch.num_rows
        if rows > IN_MEMORY_VIEWINGS:
            yield from _ordered_on_disk(itertools.chain(first, viewings), viewings.schema, folder)
            return
    order = [(name, "ascending") for name in ORDER]
    ordered = pa.Table.from_batches(first, viewings.schema).sort_by(order)
    yield from ordered.combine_chunks().to_batches(8 * ROW_GROUP_ROWS)


def _ordered_on_disk(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: str
) -> Iterator[pa.RecordBatch]:
    """The same by DuckDB's external sort, which spills to a folder."""
    import duckdb  # many megabytes, and only large days need it

    limits = {"memory_limit": SORT_MEMORY, "temp_directory": folder, "threads": "2"}
    with duckdb.connect(config={**limits}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("viewings", pa.RecordBatchReader.from_batches(schema, batches))
        order = ", ".join(f"{name} NULLS LAST" for name in ORDER)
        ordered = connection.sql(f"FROM viewings ORDER BY {order}")
        try:
            yield from ordered.to_arrow_reader(8 * ROW_GROUP_ROWS)
        except duckdb.Error as error:
            # DuckDB reports a full disk in the text only. Of one that is nearly full it uses nine tenths, and
            # then reports that memory is full.
            said = str(error)
            if "No space left" in said or "failed to offload" in said:
                raise DiskFull(
                    f"the disk is full ({folder}: {os.strerror(errno.ENOSPC)})",
                    "free space there, then run it again; TMPDIR names another place to order viewings in",
                ) from error
            if isinstance(error, duckdb.OutOfMemoryException):
                said = f"no memory to order viewings ({failures.reason(error)})"
                raise OutOfMemory(said, "free some, then run it again") from error
            # An error of the stream that it reads is reported as text only.
            raise OSError(str(error)) from error


@dataclass(frozen=True)
class _Found:
    """Where in a file the viewings of some episodes are.

    Attributes:
        file: The file.
        starts: For each episode, its first row in the file.
        counts: For each episode, its rows there; they lie together.
    """

    file: LakeFile
    starts: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def read(self, table: LakeTable, footer: Footer, begin: int, end: int) -> Iterator[pa.Table]:
        """The rows of the episodes from one to another, in the file's order and without their epid.

        Raises:
            ViewingUnreadable: If the input's `completed` of one could not be read.
        """
        is_there = self.counts[begin:end] > 0
        starts, counts = self.starts[begin:end][is_there], self.counts[begin:end][is_there]
        if not len(counts):
            return
        first, last = footer.group_of(starts), footer.group_of(starts + counts - 1)
        opened = np.bincount(first, minlength=len(footer.ends) + 1)
        closed = np.bincount(last + 1, minlength=len(footer.ends) + 1)
        is_needed = (np.cumsum(opened - closed) > 0)[:-1]
        # From here on, rows are numbered within the row groups that are needed.
        starts = starts - np.cumsum(np.where(is_needed, 0, footer.sizes))[first]
        ends = starts + counts
        groups = np.flatnonzero(is_needed)
        up_to = np.cumsum(footer.sizes[groups])
        with table.open(self.file, footer.metadata) as file:
            for low, high in _cut(footer.sizes[groups], RUN_ROWS):
                own = groups[low:high]
                origin, limit = up_to[low] - footer.sizes[own[0]], up_to[high - 1]
                some = slice(np.searchsorted(ends, origin, "right"), np.searchsorted(starts, limit, "left"))
                from_row = starts[some].clip(origin) - origin
                rows = ends[some].clip(max=limit) - origin - from_row
                if footer.lacks_optional[own].all():
                    run = file.read_row_groups(own.tolist(), [*READ_COLUMNS], use_threads=False)
                    yield _rows(run, from_row, rows)
                else:
                    run = file.read_row_groups(own.tolist(), use_threads=False)
                    yield _require_readable(_rows(run, from_row, rows), self.file.day)


def _find(
    table: LakeTable, footer: Footer, epids: npt.NDArray[np.int64], is_wanted: npt.NDArray[np.bool_]
) -> _Found:
    """Find some of many episodes in a file, one row group after the other."""
    starts, counts = np.zeros(len(epids), np.int64), np.zeros(len(epids), np.int64)
    wanted = np.flatnonzero(is_wanted)
    own = epids[wanted]
    begins, ends = np.searchsorted(own, footer.lowest, "left"), np.searchsorted(own, footer.highest, "right")
    has_some = np.flatnonzero(ends > begins)
    if len(has_some):
        with table.open(footer.file, footer.metadata) as file:
            for group in has_some.tolist():
                column = (
                    file.read_row_group(group, ["epid"], use_threads=False)["epid"].drop_null().to_numpy()
                )
                some = wanted[begins[group] : ends[group]]
                lower = np.searchsorted(column, epids[some], "left")
                rows = np.searchsorted(column, epids[some], "right") - lower
                is_first = (rows > 0) & (counts[some] == 0)
                starts[some[is_first]] = footer.begin_of(group) + lower[is_first]
                counts[some] += rows
    return _Found(footer.file, starts, counts)


def _rows(run: pa.Table, starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> pa.Table:
    """Some of the rows that were read: a copy if they are less than half, so that the others are released."""
    wanted = int(counts.sum())
    if 2 * wanted >= len(run) and (starts[1:] == (starts + counts)[:-1]).all():
        return run.slice(starts[0], wanted)
    return run.take(row_numbers(starts, counts))


def _part(
    schema: pa.Schema,
    runs: list[pa.Table],
    epids: npt.NDArray[np.int64],
    days: npt.NDArray[np.datetime64],
    counts: npt.NDArray[np.int64],
) -> pa.Table:
    """Put together what was read of some episodes, file by file, in the order of episodes and days.

    Args:
        schema: Of the files.
        runs: What was read of the first file, and so on.
        epids: The episodes.
        days: The files' days.
        counts: The rows of each episode (second axis) in each file (first axis).
    """
    read = pa.schema([schema.field(name) for name in READ_COLUMNS])
    rows = pa.concat_tables([read.empty_table(), *runs]).combine_chunks().take(_by_episode(counts))
    lengths = counts.T.ravel()
    known = (
        np.repeat(epids, counts.sum(axis=0)),
        np.repeat(np.broadcast_to(days, counts.T.shape).ravel(), lengths),
    )
    return pa.table([pa.array(known[0]), pa.array(known[1]), *rows.columns], [*COLUMNS])


def _cut(counts: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges whose counts sum up to at most `most`, or that have a single greater count."""
    ends = np.cumsum(counts)
    begin, before = 0, 0
    while begin < len(counts):
        end = max(int(np.searchsorted(ends, before + most, "right")), begin + 1)
        yield begin, end
        begin, before = end, int(ends[end - 1])


def _by_episode(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row numbers that bring rows which lie file by file into the order episode by episode.

    Args:
        counts: The rows of each episode (second axis) in each file (first axis).
    """
    lengths = counts.ravel()
    starts = (np.cumsum(lengths) - lengths).reshape(counts.shape)
    return row_numbers(starts.T.ravel(), counts.T.ravel())


def _require_readable(viewings: pa.Table, day: dt.date) -> pa.Table:
    """A day's rows without the column of what could not be read; raises ViewingUnreadable if it has any."""
    found = viewings[UNREADABLE]
    if found.null_count < len(found):
        row = int(pc.index(found.is_valid(), True).as_py())
        raise ViewingUnreadable(
            f"viewings.completed of epid {viewings['epid'][row]} at {viewings['viewed_at'][row]} holds"
            f" {found[row].as_py()[:_SHOWN_CHARACTERS]!r}, which is neither true nor false",
            # It may be of a day before the first one, which has no drop.
            "have it corrected in the input, then run `episodes run DAY --since "
            f"{day} --accept-lost-viewings --rework --reason WHY`, DAY being the day that was to be computed",
        )
    return viewings.select(list(READ_COLUMNS))

"""What the lake has of one episode: its rows in a day's drops, the refused ones, its viewings day by day.

For whoever asks why a row of the results is what it is (`explanation/`). Of a file only the row groups are
read that may have the episode, some rows at a time; of very many refused rows not all are looked at. It does
without `drops.py`, which reads whole drops: pandas and pandera take longer to load than the answer to find.
"""

import datetime as dt
import json
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import EpisodesError
from episodes_assets.explanation import records
from episodes_assets.lake.day_file import ROW_GROUP_ROWS, LakeFile
from episodes_assets.lake.drop_record import EPISODES, QUARANTINE, VIEWED_EPISODES, Drop, drops_of
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import PinnedVersion, TableVersion
from episodes_assets.lake.viewings import NAME as VIEWINGS

_ROW = ("algorithm_id", "premier_date", "start_date", "series", "season", "episode", "title")
_REFUSED = (*_ROW, "epid", "reasons", "as_found")
# A useless catalogue may be refused as a whole, with the same id in all of its rows or with none that can be
# read, so what is looked at and what is kept is bounded: first of the refused rows with the id,
_MOST_LOOKED_AT = 1 << 14
_MOST_REFUSED = 100
_MOST_OF_AN_ALGORITHM = 10
# then of those whose id could not be read and may be the one that is asked for.
_MOST_SEARCHED = 1 << 21
_MOST_UNCERTAIN = 10
_FILES_AT_ONCE = 8
_MORE_THAN_ANY = 2**63


class _Taken(NamedTuple):
    """A drop, and the version of the table `episodes` with which it became the day's."""

    drop: Drop
    version: int


class EpisodeInLake:
    """One episode in the tables of a lake.

    Args:
        lake_url: The lake: a folder, or a URL such as `s3://bucket/prefix`, that may be reached.
        epid: The episode.
    """

    def __init__(self, lake_url: str, epid: int) -> None:
        self._epid = epid
        self._episodes = LakeTable(lake_url, EPISODES)
        self._quarantine = LakeTable(lake_url, QUARANTINE)
        self._viewed = LakeTable(lake_url, VIEWED_EPISODES)
        self._viewings = LakeTable(lake_url, VIEWINGS)
        self._used: Drop | None = None

    def read_drops(self, day: dt.date, snapshot_id: str | None) -> records.DayOfDrops:
        """The day's drops, and the episode's rows in one of them.

        What cannot be read is `Unknown`, whatever keeps it from being read.

        Args:
            day: The day.
            snapshot_id: The drop that something was made from; None for the one that is the day's now.
        """
        try:
            newest = self._episodes.newest()
            current = newest.files.get(day) if newest else None
            now, wanted = self._find_drops(current, snapshot_id) if current else (None, None)
        except EpisodesError as error:
            return records.DayOfDrops(records.Unknown(error.what))
        if wanted is None:
            gone = records.Unknown(f"the lake has no drop {snapshot_id} of {day}") if snapshot_id else None
            return records.DayOfDrops(gone)
        self._used = wanted.drop
        used = self._with_rows(_describe(*wanted), wanted.drop)
        is_there = isinstance(used.accepted, records.Unknown) or used.accepted or used.refused
        return records.DayOfDrops(
            used, _describe(*now) if now else None, None if is_there else self._last_seen(newest, day)
        )

    def _find_drops(self, current: LakeFile, snapshot_id: str | None) -> tuple[_Taken | None, _Taken | None]:
        """The drop that is the day's now, and the one that is asked for.

        The log is read back to where both were committed; all of it for a drop that was never there.

        Args:
            current: The day's file as it is now.
            snapshot_id: The drop that is asked for; None for the one that is the day's now.
        """
        now: _Taken | None = None
        wanted: _Taken | None = None
        for commit in self._episodes.latest_commits():
            for drop in drops_of(commit, current.day):
                taken = _Taken(drop, commit.number)
                if now is None and drop.episodes == current:
                    now = taken
                is_wanted = taken is now if snapshot_id is None else drop.snapshot_id == snapshot_id
                if wanted is None and is_wanted:
                    wanted = taken
            if now and wanted:
                break
        return now, wanted

    def _with_rows(self, record: records.DropRecord, drop: Drop) -> records.DropRecord:
        accepted: Sequence[records.CatalogueRow] | records.Unknown
        refused: Sequence[records.RefusedRow] | records.Unknown
        try:
            accepted = [
                _row(each) for each in _rows_of(self._episodes, drop.episodes, self._epid, [*_ROW, "epid"])
            ]
        except EpisodesError as error:
            accepted = records.Unknown(error.what)
        more = 0
        try:
            refused, more = self._refused(drop.quarantine)
        except EpisodesError as error:
            refused = records.Unknown(error.what)
        return replace(record, accepted=accepted, refused=refused, more_refused=more)

    def _refused(self, file: LakeFile) -> tuple[list[records.RefusedRow], int]:
        """Refused rows that are of the episode or may be, and how many more there may be."""
        if not file.rows:
            return [], 0
        with self._quarantine.open(file) as opened:
            certain, more = self._certain(opened)
            uncertain, unsearched = self._uncertain(opened)
        return certain + uncertain, more + unsearched

    def _certain(self, opened: pq.ParquetFile) -> tuple[list[records.RefusedRow], int]:
        """Refused rows of the episode: of each algorithm some, and how many more there are."""
        found: list[records.RefusedRow] = []
        seen: Counter[int | None] = Counter()
        rows, looked_at = 0, 0
        for group in _groups_of(opened, self._epid):
            places: list[int] = []
            for begin, batch in _batches(opened, group, ["epid", "algorithm_id"]):
                own = _places(batch["epid"], self._epid)
                rows += len(own)
                for place in own[: _MOST_LOOKED_AT - looked_at].to_pylist():
                    looked_at += 1
                    algorithm_id = batch["algorithm_id"][place].as_py()
                    seen[algorithm_id] += 1
                    is_full = len(found) + len(places) == _MOST_REFUSED
                    if seen[algorithm_id] <= _MOST_OF_AN_ALGORITHM and not is_full:
                        places.append(begin + place)
            found += [
                records.RefusedRow(_row(said), _rules(said["reasons"]), said["as_found"] or "")
                for said in _read(opened, group, places, _REFUSED)
            ]
        return found, rows - len(found)

    def _uncertain(self, opened: pq.ParquetFile) -> tuple[list[records.RefusedRow], int]:
        """Refused rows in which the id stands in another spelling, and how many more there may be."""
        lacking = [_statistics(opened.metadata, each).null_count for each in range(opened.num_row_groups)]
        spelling = _spelling(self._epid)
        found: list[records.RefusedRow] = []
        left, searched, is_enough = sum(lacking), 0, False
        for group in [number for number, count in enumerate(lacking) if count]:
            if is_enough:
                break
            places: list[int] = []
            for begin, batch in _batches(opened, group, ["epid", "as_found"]):
                searched += batch.num_rows
                left -= batch["epid"].null_count
                looks_like_it = pc.match_substring_regex(batch["as_found"], spelling)
                places += [
                    begin + place
                    for place in pc.indices_nonzero(looks_like_it).to_pylist()
                    if _may_be(batch["as_found"][place].as_py(), self._epid)
                ]
                is_enough = searched >= _MOST_SEARCHED or len(found) + len(places) >= _MOST_UNCERTAIN
                if is_enough:
                    break
            shown = places[: _MOST_UNCERTAIN - len(found)]
            left += len(places) - len(shown)
            found += [
                records.RefusedRow(_row(said), _rules(said["reasons"]), said["as_found"], is_certain=False)
                for said in _read(opened, group, shown, _REFUSED)
            ]
        return found, left

    def _last_seen(self, newest: TableVersion | None, day: dt.date) -> dt.date | None:
        """The last of the days just before whose drop, as it is now, has the episode."""
        for number in range(1, records.LOOKED_BACK_DAYS + 1):
            before = day - number * ONE_DAY
            if newest is None or before not in newest.files:
                continue
            try:
                if _rows_of(self._episodes, newest.files[before], self._epid, ["epid"]):
                    return before
            except EpisodesError:  # another day's file says nothing of this one
                continue
        return None

    def was_listed_as_viewed(self, snapshot_id: str | None) -> bool | records.Unknown:
        """Whether a release before the lake recorded it as viewed, with a drop that was read before."""
        drop = self._used
        if drop is None or drop.snapshot_id != snapshot_id or drop.viewed is None:
            return records.Unknown(
                "it names no version of the lake's viewings, and there is no list of what was viewed"
            )
        try:
            return bool(_rows_of(self._viewed, drop.viewed, self._epid, ["epid"]))
        except EpisodesError as error:
            return records.Unknown(error.what)

    def count_viewings(
        self, pinned: PinnedVersion, first: dt.date, last: dt.date
    ) -> Mapping[dt.date, int] | records.Unknown:
        """The episode's viewings by day; days without any are left out.

        Args:
            pinned: The version.
            first: The first UTC date.
            last: The last one.
        """

        def count(file: LakeFile) -> int:
            return _count(self._viewings, file, self._epid)

        try:
            version = self._viewings.at(*pinned, by="the plan")
            if last not in version.files:
                return records.Unknown(f"the lake has no viewings of {last} in version {version.number}")
            files = version.between(first, last)
            with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                found = dict(zip((file.day for file in files), pool.map(count, files), strict=True))
        except EpisodesError as error:
            return records.Unknown(error.what)
        return {day: rows for day, rows in found.items() if rows}

    def count_newest_viewings(self, day: dt.date) -> int | records.Unknown:
        """The episode's viewings of a day in the newest version; none of a day that it lacks."""
        try:
            newest = self._viewings.newest()
            file = newest.files.get(day) if newest else None
            return _count(self._viewings, file, self._epid) if file else 0
        except EpisodesError as error:
            return records.Unknown(error.what)


def _describe(drop: Drop, version: int) -> records.DropRecord:
    return records.DropRecord(
        snapshot_id=drop.snapshot_id,
        version=version,
        taken_at=dt.datetime.fromisoformat(drop.taken_at),
        reason=drop.reason,
        rows=drop.drop_rows,
        quarantined=drop.quarantined_rows,
    )


def _row(said: Mapping[str, Any]) -> records.CatalogueRow:
    return records.CatalogueRow(**{name: said[name] for name in _ROW})


def _rules(reasons: str) -> tuple[str, ...]:
    return tuple(reasons.split(", "))


def _spelling(epid: int) -> str:
    """What JSON matches in which an id's digits stand for its `epid`, beside what need not change a number.

    A regular expression as Arrow has them (RE2). It leaves few rows of many, for `_may_be` to look at.
    """
    blank = r"(?:\s|\pZ|\\[bfnrt]|\\u[0-9A-Fa-f]{4})*"
    number = rf"[-+]?[0_]*\.?[0_]*{abs(epid)}[0_]*\.?[0_]*(?:[Ee][-+]?[0-9_]+)?"
    return rf'"epid":\s*"?{blank}{number}{blank}["}},]'


def _may_be(as_found: str, epid: int) -> bool:
    """Whether what stands in place of an epid is this one in another spelling, such as `007` or `7.0`."""
    found = json.loads(as_found).get("epid")
    try:
        return Decimal(str(found).strip()) == epid
    except InvalidOperation:
        return False


def _statistics(metadata: pq.FileMetaData, group: int) -> Any:  # noqa: ANN401  pyarrow has no types
    return metadata.row_group(group).column(metadata.schema.names.index("epid")).statistics


def _rows_of(table: LakeTable, file: LakeFile, epid: int, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of an episode in a file in which an episode has few, whatever their order.

    Raises:
        LakeDamaged: If the file is gone, was cut or changed.
        SystemFailure: If the lake cannot be reached.
    """
    found: list[dict[str, Any]] = []
    with table.open(file) as opened:
        for group in _groups_of(opened, epid):
            places = [
                begin + place
                for begin, batch in _batches(opened, group, ["epid"])
                for place in _places(batch["epid"], epid).to_pylist()
            ]
            found += _read(opened, group, places, columns)
    return found


def _groups_of(opened: pq.ParquetFile, epid: int) -> list[int]:
    """The row groups that may have an episode."""
    ranges = [_statistics(opened.metadata, number) for number in range(opened.num_row_groups)]
    return [number for number, each in enumerate(ranges) if each.has_min_max and each.min <= epid <= each.max]


def _batches(
    opened: pq.ParquetFile, group: int, columns: Sequence[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Some rows of a row group after the other, each time with the number of the first.

    A row group may be a whole drop: what has no id lies together.
    """
    begin = 0
    for batch in opened.iter_batches(ROW_GROUP_ROWS, [group], list(columns), use_threads=False):
        yield begin, batch
        begin += batch.num_rows


def _read(
    opened: pq.ParquetFile, group: int, places: Sequence[int], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Some rows of a row group, by their numbers in it, ascending."""
    if not places:
        return []
    found: list[dict[str, Any]] = []
    # To the group's end, where the rows are counted: Arrow passes over a page of whose header a byte differs.
    for begin, batch in _batches(opened, group, columns):
        some = slice(bisect_left(places, begin), bisect_left(places, begin + batch.num_rows))
        found += [_as_python(batch.slice(place - begin, 1)) for place in places[some]]
    return found


def _as_python(row: pa.RecordBatch) -> dict[str, Any]:
    """The values of a row; a date that Python lacks, which PostgreSQL has, is text."""
    columns = zip(row.schema.names, row.columns, strict=True)
    return {name: _date(of[0]) if of.type == pa.date32() else of[0].as_py() for name, of in columns}


def _date(value: pa.Date32Scalar) -> dt.date | str | None:
    days = value.value  # since 1970
    if days is None:
        return None
    if _FIRST_DATE <= days <= _LAST_DATE:
        return _EPOCH + dt.timedelta(days)
    # The calendar repeats itself after 400 years.
    cycles, rest = divmod(days - _SAME_YEARS, _CYCLE)
    same = _EPOCH + dt.timedelta(_SAME_YEARS + rest)
    year = same.year + 400 * cycles
    spelt = f"{year if year > 0 else 1 - year:04}-{same:%m-%d}"  # as PostgreSQL spells it
    return spelt if year > 0 else f"{spelt} BC"


_EPOCH = dt.date(1970, 1, 1)
_FIRST_DATE, _LAST_DATE = (dt.date.min - _EPOCH).days, (dt.date.max - _EPOCH).days
_SAME_YEARS = (dt.date(2000, 1, 1) - _EPOCH).days
_CYCLE = 146_097


def _count(table: LakeTable, file: LakeFile, epid: int) -> int:
    """The rows of an episode in a file that is ordered by epid, missing ones last."""
    if not file.rows:
        return 0
    with table.open(file) as opened:
        metadata, groups = opened.metadata, range(opened.num_row_groups)

        def highest(group: int) -> int:
            each = _statistics(metadata, group)
            return int(each.max) if each.has_min_max else _MORE_THAN_ANY

        rows = 0
        for group in groups[bisect_left(groups, epid, key=highest) :]:
            each = _statistics(metadata, group)
            if not each.has_min_max or each.min > epid:
                break
            column = opened.read_row_group(group, ["epid"], use_threads=False)["epid"]
            rows += sum(len(_places(part, epid)) for part in column.chunks)
        return rows


def _places(epids: pa.Array, epid: int) -> pa.Array:
    """Where an episode is among some rows."""
    # Not made of Python's number: Arrow loads pandas when it is handed one.
    (wanted,) = pa.Array.from_buffers(pa.int64(), 1, [None, pa.py_buffer(struct.pack("=q", epid))])
    return pc.indices_nonzero(pc.equal(epids, wanted))

"""What the lake has of one episode: its rows in a day's drops, the refused ones, its viewings day by day.

For whoever asks why a row of the results is what it is (`explanation/`). Of a file only the row groups are
read that may have the episode. It does without `drops.py`, which reads whole drops: pandas and pandera take
longer to load than the answer to find.
"""

import datetime as dt
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import EpisodesError
from episodes_assets.explanation import records
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.drop_record import EPISODES, QUARANTINE, VIEWED_EPISODES, Drop, drops_of
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import PinnedVersion, TableVersion
from episodes_assets.lake.viewings import NAME as VIEWINGS

_ROW = ("algorithm_id", "premier_date", "start_date", "series", "season", "episode", "title")
_REFUSED = (*_ROW, "epid", "reasons", "as_found")
# Rows whose epid could not be read may be many, and those that look like one id are few.
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
        try:
            refused = list(self._refused(drop.quarantine))
        except EpisodesError as error:
            refused = records.Unknown(error.what)
        return records.DropRecord(**{**vars(record), "accepted": accepted, "refused": refused})

    def _refused(self, file: LakeFile) -> Iterator[records.RefusedRow]:
        if not file.rows:
            return
        for said in _rows_of(self._quarantine, file, self._epid, _REFUSED):
            yield records.RefusedRow(_row(said), _rules(said["reasons"]), said["as_found"] or "")
        uncertain = 0
        for said in self._unreadable(file):
            if uncertain < _MOST_UNCERTAIN and _may_be(said["as_found"], self._epid):
                uncertain += 1
                yield records.RefusedRow(
                    _row(said), _rules(said["reasons"]), said["as_found"], is_certain=False
                )

    def _unreadable(self, file: LakeFile) -> list[dict[str, Any]]:
        """Refused rows whose epid could not be read, in whose place something with its digits stands."""
        with self._quarantine.open(file) as opened:
            every = range(opened.num_row_groups)
            groups = [number for number in every if _statistics(opened.metadata, number).null_count]
            if not groups:
                return []
            table = opened.read_row_groups(groups, list(_REFUSED))
        digits = pc.match_substring(table["as_found"], str(abs(self._epid)))
        return list(table.filter(pc.and_(table["epid"].is_null(), digits)).to_pylist())

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
    """The rows of an episode in a file, whatever their order.

    Raises:
        LakeDamaged: If the file is gone, was cut or changed.
        SystemFailure: If the lake cannot be reached.
    """
    with table.open(file) as opened:
        ranges = [_statistics(opened.metadata, number) for number in range(opened.num_row_groups)]
        groups = [
            number for number, each in enumerate(ranges) if each.has_min_max and each.min <= epid <= each.max
        ]
        found: list[dict[str, Any]] = []
        for group in groups:
            # The other columns are read where it is known to be there.
            places = _places(opened.read_row_group(group, ["epid"]), epid)
            if places:
                first, last = places[0], places[-1]
                rows = opened.read_row_group(group, list(columns)).slice(first, last - first + 1)
                found += [each for each in rows.to_pylist() if each["epid"] == epid]
        return found


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
            rows += len(_places(opened.read_row_group(group, ["epid"], use_threads=False), epid))
        return rows


def _places(rows: pa.Table, epid: int) -> list[int]:
    """Where an episode is among some rows."""
    # Compared here: Arrow loads pandas when it is handed a number, or hands out an array of numpy's.
    return [place for place, each in enumerate(rows["epid"].to_pylist()) if each == epid]

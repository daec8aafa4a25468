"""The state of the lake's tables, verifying files, and what may be removed of them (garbage collection).

Kept are the files of the newest versions and of those that plans, publications and tracked days name; the
callers read these names from the databases, and choose the age below which any file stays. Also here: which
of the named versions and drops a lake lacks, as one that was replaced does. The files are `files.py`.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import LakeDamaged
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import PinnedVersion

# A drop as plans, tracked days and publications name it: its day and its `snapshot_id`, which follows from
# the content, so that two days may have the same.
NamedDrop = tuple[dt.date, str]


@dataclass(frozen=True)
class TableStatus:
    """A table as it is.

    Attributes:
        name: Its name.
        version: The newest version.
        environment: The environment that it belongs to.
        days: How many days it has.
        first: The first of them; None when there is none.
        last: The last.
        gaps: Days between them that it lacks.
        rows: Rows of all days.
        size: Bytes of their files.
    """

    name: str
    version: int
    environment: str
    days: int
    first: dt.date | None
    last: dt.date | None
    gaps: int
    rows: int
    size: int


def describe(table: LakeTable) -> TableStatus | None:
    """A table as it is; None when it was never written to.

    Raises:
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    newest = table.newest()
    if newest is None:
        return None
    days = list(newest.files)
    span = (days[-1] - days[0]) // ONE_DAY + 1 if days else 0
    files = newest.files.values()
    return TableStatus(
        name=table.name,
        version=newest.number,
        environment=table.environment() or "",
        days=len(days),
        first=days[0] if days else None,
        last=days[-1] if days else None,
        gaps=span - len(days),
        rows=sum(file.rows for file in files),
        size=sum(file.size for file in files),
    )


def missing_of(table: LakeTable, pinned: Iterable[PinnedVersion]) -> list[PinnedVersion]:
    """Those of some versions that the table does not have, or has with other content, in order.

    Raises:
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    distinct = set(pinned)
    newest = table.newest()
    last = newest.number if newest else -1
    there = table.digests({each.number for each in distinct if each.digest is not None})
    return sorted(
        (
            each
            for each in distinct
            if each.number > last or (each.digest is not None and each.digest != there[each.number])
        ),
        key=lambda each: (each.number, each.digest or ""),
    )


def files_of(table: LakeTable, pinned: Collection[PinnedVersion]) -> list[LakeFile]:
    """The files of some versions and of the newest one, each once, by day.

    Raises:
        LakeMissing: If there is no such version.
        LakeReplaced: If one of them has other content than was recorded.
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    newest = table.newest()
    kept = {file for each in pinned for file in table.at(*each, by="a plan or a publication").files.values()}
    kept |= set(newest.files.values()) if newest else set()
    return sorted(kept, key=lambda file: (file.day, file.path))


def missing_drops(drops: Drops, named: Collection[NamedDrop]) -> list[NamedDrop]:
    """Those of some drops that the history of `episodes` does not have, in order.

    What their files are called is known from there alone, so those of a drop that it lacks cannot be told
    from files that nothing names.

    Raises:
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    return sorted({*named} - {(drop.day, drop.snapshot_id) for drop in drops.history()})


def files_of_drops(
    drops: Drops, named: Collection[NamedDrop], since: dt.datetime | None = None
) -> list[tuple[LakeTable, list[LakeFile]]]:
    """The files of some drops, of the current ones, and of those of recent versions.

    Args:
        drops: The lake's.
        named: The drops; those of `missing_drops` are left out.
        since: Files of all versions since then are included; None for those of the newest version only.

    Returns:
        For each table its files, each once, by day.

    Raises:
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    newest = drops.episodes.newest()
    current = {*newest.files.values()} if newest else set()
    kept = [
        drop for drop in drops.history() if (drop.day, drop.snapshot_id) in named or drop.episodes in current
    ]
    files_by_table = {
        drops.episodes: {drop.episodes for drop in kept},
        drops.quarantine: {drop.quarantine for drop in kept},
        drops.viewed: {drop.viewed for drop in kept if drop.viewed},
    }
    found = []
    for table, files in files_by_table.items():
        late = [PinnedVersion(number, None) for number in versions_since(table, since)] if since else []
        files |= {*files_of(table, late)}
        found.append((table, sorted(files, key=lambda file: (file.day, file.path))))
    return found


def versions_since(table: LakeTable, moment: dt.datetime) -> list[int]:
    """The versions that were the newest one at some time since a moment, lost entries of the log included.

    Raises:
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    before = [commit.number for commit in table.commits() if commit.at < moment]
    newest = table.newest()
    return [] if newest is None else list(range(before[-1] if before else 0, newest.number + 1))


def remove_unnamed(table: LakeTable, path: str, older_than: dt.timedelta) -> bool:
    """Remove a data file, unless it was written again or committed meanwhile; returns whether.

    Args:
        table: The table.
        path: The file, as `LakeTable.unnamed` returns it.
        older_than: As it was given there.

    Raises:
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached, or the file cannot be removed.
    """
    newest = table.newest()
    if newest is not None and any(file.path == path for file in newest.files.values()):
        return False
    return table.remove_if_older(path, older_than)


def verify(table: LakeTable, files: Collection[LakeFile]) -> Iterator[tuple[LakeFile, str]]:
    """Compare the bytes of files with what was written, and their rows with what the log says.

    Yields:
        Each file, and what is wrong with it; nothing when it is whole.

    Raises:
        SystemFailure: If the lake cannot be reached.
    """
    for file in files:
        try:
            yield file, _fault(table, file)
        except LakeDamaged as error:
            yield file, error.what


def _fault(table: LakeTable, file: LakeFile) -> str:
    if not table.is_whole(file):
        return "was cut or changed"
    with table.open(file) as opened:
        rows = opened.metadata.num_rows
    return "" if rows == file.rows else f"has {rows:,} rows, but {file.rows:,} by the table's log"

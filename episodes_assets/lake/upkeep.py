"""What an operator looks at in a table of the lake: what it has, and whether its files are whole."""

import datetime as dt
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import LakeDamaged
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.tables import LakeTable


@dataclass(frozen=True)
class TableStatus:
    """A table as it is.

    Attributes:
        name: Its name.
        version: The newest version.
        environment: Whose it is.
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


def files_of(table: LakeTable, versions: Collection[int]) -> list[LakeFile]:
    """The files of some versions and of the newest one, each once, by day.

    Raises:
        LakeMissing: If there is no such version.
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    newest = table.newest()
    kept = {file for each in sorted(versions) for file in table.at(each).files.values()}
    kept |= set(newest.files.values()) if newest else set()
    return sorted(kept, key=lambda file: (file.day, file.path))


def verify(table: LakeTable, files: Collection[LakeFile]) -> Iterator[tuple[LakeFile, str]]:
    """Compare the bytes of files with what was written.

    Yields:
        Each file, and what is wrong with it; nothing when it is whole.

    Raises:
        SystemFailure: If the lake cannot be reached.
    """
    for file in files:
        try:
            yield file, "" if table.is_whole(file) else "was cut or changed"
        except LakeDamaged as error:
            yield file, error.what

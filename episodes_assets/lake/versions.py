"""A version of a table, its identity, and what the table's history records of each commit.

Plans and publications name versions, so this module loads nothing of Delta Lake. Opening a version is
`tables.py`.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa

from episodes_assets.lake.day_file import LakeFile

# The property of a table that has a part of another lake's viewings: since when that lake has them.
COVERED = "episodes.covered_from"
# What each commit records in the table's history, so that many versions are known from one read of it.
DIGEST, DAYS = "episodes.digest", "episodes.days"
# What commits of viewings record besides.
REASON, LOST = "episodes.reason", "episodes.lost"


class PinnedVersion(NamedTuple):
    """A version as a plan or a publication names it.

    Attributes:
        number: Its number, which is given again in a lake that replaced another one.
        digest: Of its content, which distinguishes the two; None where it was not recorded.
    """

    number: int
    digest: str | None


@dataclass(frozen=True)
class Commit:
    """What the table's history records of a commit.

    Attributes:
        number: The version that it made.
        at: When.
        days: The days whose files it put; None where that was not recorded.
        facts: What else was kept of it.
    """

    number: int
    at: dt.datetime
    days: Collection[dt.date] | None
    facts: Mapping[str, str]

    @property
    def reason(self) -> str:
        """Why viewings were taken; empty if that was not recorded."""
        return self.facts.get(REASON, "")

    @property
    def lost(self) -> Mapping[dt.date, tuple[int, int]]:
        """The days whose viewings were replaced although some were gone from the input.

        With how many were gone, and how many new ones there were.
        """
        counts: dict[str, tuple[int, int]] = json.loads(self.facts.get(LOST, "{}"))
        return {dt.date.fromisoformat(day): (gone, new) for day, (gone, new) in counts.items()}


@dataclass(frozen=True)
class TableVersion:
    """A version of a table.

    Attributes:
        number: The version.
        schema: Its columns without `day`.
        files: The file of each day that was taken, in order of the days.
        covered: Of a lake that is a part of another one: since when that one has viewings, by the days whose
            jobs are computed from it.
    """

    number: int
    schema: pa.Schema
    files: Mapping[dt.date, LakeFile]
    covered: Mapping[dt.date, dt.date | None] = field(default_factory=dict)

    def between(self, first: dt.date, last: dt.date) -> list[LakeFile]:
        """The files of some days, in order."""
        return [file for day, file in self.files.items() if first <= day <= last]

    @cached_property
    def digest(self) -> str:
        """Identifies its content: a SHA-256 of its days and of what their files are called.

        That is by the digests of their bytes, so two versions of one digest hold the same, in whatever lake.
        """
        named = "".join(f"{day} {file.path}\n" for day, file in sorted(self.files.items()))
        return hashlib.sha256(named.encode()).hexdigest()

    @property
    def pinned(self) -> PinnedVersion:
        """As plans and publications name it."""
        return PinnedVersion(self.number, self.digest)


def covered_to_text(covered: Mapping[dt.date, dt.date | None]) -> str:
    """`TableVersion.covered` as a property of the table."""
    return json.dumps({str(day): begin and str(begin) for day, begin in sorted(covered.items())})


def covered_from_text(text: str | None) -> dict[dt.date, dt.date | None]:
    """`TableVersion.covered` from the table's property; empty where the table has none."""
    found: dict[str, str | None] = json.loads(text or "{}")
    day = dt.date.fromisoformat
    return {day(each): None if begin is None else day(begin) for each, begin in found.items()}


def read_commit(number: int, entry: Mapping[str, Any]) -> Commit:
    """A commit, from the version that it made and the `commitInfo` of its entry in Delta's log."""
    facts = {name: text for name, text in entry.items() if name.startswith("episodes.")}
    days: Collection[dt.date] | None = None
    if entry["operation"] != "WRITE":
        days = ()
    elif DAYS in facts:
        days = [dt.date.fromisoformat(each) for each in facts[DAYS].split()]
    moment = dt.datetime.fromtimestamp(entry["timestamp"] / 1000, dt.UTC)
    return Commit(number, moment, days, facts)

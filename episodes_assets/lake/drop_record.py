"""What is known of a drop besides its rows: its tables, and its record in a day's file and in commits.

It is JSON under the key `episodes.drop` in the metadata of the day's file, and under `episodes.drops` in the
commit that made it the day's. Writing and reading a drop's rows is `drops.py`; this loads none of what that
needs.
"""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.versions import Commit

EPISODES, QUARANTINE, VIEWED_EPISODES = "episodes", "quarantine", "viewed_episodes"
RECORD = "episodes.drop"
RECORDS = "episodes.drops"


@dataclass(frozen=True)
class Drop:
    """A day's drop as it was taken.

    Attributes:
        day: The day.
        snapshot_id: Follows from the content and from what was viewed on the day: equal input, equal id.
        drop_rows: Rows read from the input, counted before validation.
        accepted_rows: Rows that passed validation.
        quarantined_rows: Rows that did not.
        viewed_episodes: Distinct episodes viewed on the day by then.
        reasons: Quarantined rows by broken rule; a row may break several.
        taken_at: When it was taken, ISO 8601, UTC.
        reason: Why it was taken then; empty in the ordinary course of things.
        episodes: The file of the accepted rows.
        quarantine: The file of the refused ones.
        viewed: The file of the viewed episodes, of a drop that was brought in from a release before the lake.
    """

    day: dt.date
    snapshot_id: str
    drop_rows: int
    accepted_rows: int
    quarantined_rows: int
    viewed_episodes: int
    reasons: Mapping[str, int]
    taken_at: str
    reason: str
    episodes: LakeFile
    quarantine: LakeFile
    viewed: LakeFile | None = None


def drops_of(commit: Commit, day: dt.date | None = None) -> list[Drop]:
    """The drops that a commit of `episodes` made those of their days.

    Args:
        commit: The commit.
        day: Only that of this day.
    """
    if day is not None and commit.days is not None and day not in commit.days:
        return []
    records = [
        (dt.date.fromisoformat(record["day"]), record)
        for record in json.loads(commit.facts.get(RECORDS, "[]"))
    ]
    return [
        from_record(of, record, LakeFile.from_record(of, record["episodes"]))
        for of, record in records
        if day in (None, of)
    ]


def to_record(drop: Drop) -> dict[str, Any]:
    """The record of a drop, as a commit has it."""
    files = {"episodes": drop.episodes, "quarantine": drop.quarantine, "viewed": drop.viewed}
    return {
        **asdict(drop),
        "day": drop.day.isoformat(),
        **{name: file and file.to_record() for name, file in files.items()},
    }


def from_record(day: dt.date, record: Mapping[str, Any], episodes: LakeFile) -> Drop:
    """A drop from its record.

    Args:
        day: The day.
        record: The record.
        episodes: The file of its accepted rows.

    Raises:
        KeyError: If something is missing in the record.
        TypeError: If there is something else in it.
    """
    fields = {name: value for name, value in record.items() if name not in ("day", "episodes")}
    fields["quarantine"] = LakeFile.from_record(day, record["quarantine"])
    fields["viewed"] = LakeFile.from_record(day, record["viewed"]) if record["viewed"] else None
    return Drop(day=day, episodes=episodes, **fields)

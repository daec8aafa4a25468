"""The gate of `tracked_episodes`: the accumulated state is what its manifest says."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.gates.verdicts import Verdict, judge_days

STATE_ONLY_GROWS = "state_only_grows_and_matches_its_manifest"


@dataclass(frozen=True)
class StateDay:
    """A day of the state: its manifest, the one before it, and what is stored.

    Attributes:
        day: The day.
        newly_tracked: Episodes it added, by its manifest.
        total: Episodes tracked as of the day, by its manifest.
        checksum: Of them, by its manifest.
        previous_checksum: What its manifest was built on; None at the beginning of a history.
        total_before: The total of the day before; None at the beginning.
        checksum_before: The checksum of the day before; None at the beginning.
        newly_stored: Episodes stored with this day.
        stored: Episodes stored with this day or an earlier one.
        stored_checksum: What the stored episodes make of `previous_checksum`.
    """

    day: dt.date
    newly_tracked: int
    total: int
    checksum: str
    previous_checksum: str | None
    total_before: int | None
    checksum_before: str | None
    newly_stored: int
    stored: int
    stored_checksum: str

    @property
    def faults(self) -> list[str]:
        """What is wrong with it; nothing on an ordinary day."""
        found = {
            "stored episodes are not those of the manifest": (
                (self.newly_stored, self.stored, self.stored_checksum)
                != (self.newly_tracked, self.total, self.checksum)
            ),
            "fewer than the day before": self.total < (self.total_before or 0),
            "built on another yesterday": self.previous_checksum != self.checksum_before,
        }
        return [fault for fault, is_found in found.items() if is_found]


def state_only_grows(days: Sequence[StateDay], wanted: Sequence[dt.date]) -> Verdict:
    """Whether the state as of each day is what was recorded, and holds all of the day before.

    Args:
        days: What is stored of the days.
        wanted: The days there should be.
    """
    found = {each.day for each in days}
    offending: list[dict[str, object]] = [
        {
            "day": str(each.day),
            "fault": "; ".join(each.faults),
            "stored": each.stored,
            "by the manifest": each.total,
            "the day before": each.total_before or 0,
        }
        for each in days
        if each.faults
    ]
    offending += [
        {"day": str(day), "fault": "not in the manifest", "stored": 0, "by the manifest": 0}
        for day in wanted
        if day not in found
    ]
    return judge_days(
        STATE_ONLY_GROWS,
        sorted(offending, key=lambda row: str(row["day"])),
        fault="the tracked episodes are not what was recorded",
        mend="something else writes to the schema `state` of the results database; stop it, run `UPDATE "
        "state.tracked_days SET checksum = '' WHERE day = '{day}'` there, and materialise "
        "tracked_episodes from {day} on",
        facts={
            "stored": days[-1].stored if days else 0,
            "by the manifest": days[-1].total if days else 0,
            "days compared": len(days),
        },
    )

"""What a day's jobs are planned from, looked at again before the plan is recorded.

A step reads it once for all of its days. Until a day's turn comes somebody may have corrected it, and a plan
made from what was there before must not replace theirs.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import PlanOvertaken
from episodes_assets.lake.drops import Drop, Drops
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.tracked_state import read_checksums, state_before


@dataclass(frozen=True)
class Ground:
    """What the jobs of a day are planned from.

    Attributes:
        day: The day.
        snapshot_id: Its drop.
        yesterday: The checksum of what was tracked the day before; None when nothing was.
    """

    day: dt.date
    snapshot_id: str
    yesterday: str | None


def read_grounds(state: Connection, days: Sequence[dt.date], taken: Sequence[Drop]) -> list[Ground]:
    """What some days are planned from; read it before the tracked episodes.

    Args:
        state: To `results`.
        days: The days, in order.
        taken: Their drops.
    """
    checksums = read_checksums(state, days[0] - ONE_DAY, days[-1] - ONE_DAY)
    return [
        Ground(day, drop.snapshot_id, checksums.get(day - ONE_DAY))
        for day, drop in zip(days, taken, strict=True)
    ]


def require_same_ground(ground: Ground, state: Connection, drops: Drops) -> None:
    """Refuse a plan whose ground is not the day's any more.

    Args:
        ground: What the plan was made from.
        state: To `results`; it must see what others have committed meanwhile.
        drops: The lake's.

    Raises:
        PlanOvertaken: If the day has another drop, or builds on another yesterday.
        StateGap: If its yesterday is gone, or was built on another past.
        DropMissing: If its drop is gone.
    """
    yesterday = state_before(state, ground.day)
    checksum = yesterday.checksum if yesterday else None
    if (drops.require(ground.day).snapshot_id, checksum) != (ground.snapshot_id, ground.yesterday):
        raise PlanOvertaken(
            f"{ground.day} has changed while it was planned: another run has taken a new drop of it, or "
            "tracks other episodes up to the day before",
            f"let that run end, then materialise episode_jobs from {ground.day} on again",
        )

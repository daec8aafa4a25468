"""Gates of `input_episodes`: is a day's drop whole in the lake, and is it one to build on."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from episodes_assets.gates.bands import count_is_usual
from episodes_assets.gates.verdicts import Verdict, judge_days

DROP_IS_COMPLETE = "drop_is_complete"
QUARANTINE_IS_SMALL = "quarantine_is_small"
DROP_SIZE_IS_USUAL = "drop_size_is_usual"

QUARANTINE_WARNING_SHARE = 0.05
LEAST_DROP, MOST_DROP = 0.5, 2.0


@dataclass(frozen=True)
class DropRows:
    """Rows of a day's drop, each counted where it was.

    Attributes:
        day: The day.
        read: Rows that came from the input database, counted before anything looked at them.
        accepted: Accepted rows by the drop's record.
        quarantined: Quarantined rows by the record.
        accepted_stored: Rows in the written file of accepted rows.
        quarantined_stored: Rows in the written file of quarantined rows.
    """

    day: dt.date
    read: int
    accepted: int
    quarantined: int
    accepted_stored: int
    quarantined_stored: int

    @property
    def is_complete(self) -> bool:
        """Whether every row that was read is in one of the files, and the record says so."""
        stored = (self.accepted_stored, self.quarantined_stored)
        return self.read == sum(stored) and stored == (self.accepted, self.quarantined)

    @property
    def quarantined_share(self) -> float:
        """The part of the rows read that was refused."""
        return refused_share(self.quarantined, self.read)


def refused_share(quarantined: int, read: int) -> float:
    """The part of a drop's rows that was refused."""
    return quarantined / read if read else 0.0


def drop_is_complete(drops: Sequence[DropRows]) -> Verdict:
    """Whether the rows read from each drop are those in its files."""
    return judge_days(
        DROP_IS_COMPLETE,
        [
            {
                "day": str(each.day),
                "rows read": each.read,
                "accepted in the file": each.accepted_stored,
                "quarantined in the file": each.quarantined_stored,
                "accepted by the record": each.accepted,
                "quarantined by the record": each.quarantined,
            }
            for each in drops
            if not each.is_complete
        ],
        fault="the files in the lake do not hold the rows that were read from the drop",
        mend="restore the lake from a backup, or materialise input_episodes of {day} with `refresh`",
        facts={
            "rows read": sum(each.read for each in drops),
            "accepted in the files": sum(each.accepted_stored for each in drops),
            "quarantined in the files": sum(each.quarantined_stored for each in drops),
        },
    )


def quarantine_is_small(drops: Sequence[DropRows], limit: float) -> Verdict:
    """Whether little of each drop was refused: a warning above 5 %, an error above the limit.

    Args:
        drops: Of the days to judge.
        limit: The share from 0 to 1 above which nothing is to be built on a drop.
    """
    warning_share = min(QUARANTINE_WARNING_SHARE, limit)
    many = [each for each in drops if each.quarantined_share > warning_share]
    too_many = [each for each in many if each.quarantined_share > limit]
    mend = (
        "see the quarantine reasons and have the drop mended at its source, then materialise "
        "input_episodes of {day} with `refresh`"
    )
    if too_many:
        mend += ", or raise EPISODES_QUARANTINE_LIMIT to accept it as it is"
    return judge_days(
        QUARANTINE_IS_SMALL,
        [
            {
                "day": str(each.day),
                "rows read": each.read,
                "quarantined": each.quarantined,
                "share": round(each.quarantined_share, 6),
            }
            for each in too_many or many
        ],
        fault=f"more than {limit if too_many else warning_share:.0%} of the drop was refused",
        mend=mend,
        facts={
            "quarantined": sum(each.quarantined for each in drops),
            "largest share": round(max(each.quarantined_share for each in drops), 6),
            "warning above": warning_share,
            "error above": limit,
        },
        is_error=bool(too_many),
    )


def drop_size_is_usual(accepted: Mapping[dt.date, int], days: Sequence[dt.date]) -> Verdict:
    """Whether each drop has about as many valid rows as those of the two weeks before it.

    Args:
        accepted: Accepted rows of the days, and of the days before them that have a drop.
        days: The days to judge, in order.
    """
    return count_is_usual(
        DROP_SIZE_IS_USUAL,
        accepted,
        days,
        what="accepted rows",
        low=LEAST_DROP,
        high=MOST_DROP,
        mend="ask whoever fills the input whether the drop of {day} is whole; when it has been sent "
        "again, materialise input_episodes of {day} with `refresh`",
    )

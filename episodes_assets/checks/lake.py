"""Checks of `input_episodes` and `input_viewings`: is what was taken complete, of usual size, not lost.

A drop must be complete in the lake and have few refused rows; the viewings of a day must be complete, and
none of them lost or late. Whether the lake agrees with the databases is `consistency`.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from episodes_assets.checks.verdicts import Verdict, count_is_usual, verdict_of_days
from episodes_assets.errors import CheckFailed

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
    return verdict_of_days(
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
        hint="restore the lake from a backup, or run `episodes run {day} --refresh --reason WHY`",
        facts={
            "rows read": sum(each.read for each in drops),
            "accepted in the files": sum(each.accepted_stored for each in drops),
            "quarantined in the files": sum(each.quarantined_stored for each in drops),
        },
    )


def quarantine_is_small(drops: Sequence[DropRows], limit: float) -> Verdict:
    """Whether little of each drop was refused: a warning above 5 %, an error above the limit.

    Args:
        drops: Of the days to check.
        limit: The share from 0 to 1 above which nothing is to be built on a drop.
    """
    warning_share = min(QUARANTINE_WARNING_SHARE, limit)
    many = [each for each in drops if each.quarantined_share > warning_share]
    too_many = [each for each in many if each.quarantined_share > limit]
    hint = (
        "see the quarantine reasons and have the drop corrected at its source, then run "
        "`episodes run {day} --refresh --reason WHY`"
    )
    if too_many:
        hint += ", or raise EPISODES_QUARANTINE_LIMIT to accept it as it is"
    return verdict_of_days(
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
        hint=hint,
        facts={
            "quarantined": sum(each.quarantined for each in drops),
            "largest share": round(max(each.quarantined_share for each in drops), 6),
            "warning above": warning_share,
            "error above": limit,
        },
        is_error=bool(too_many),
    )


def refuse_large_quarantine(day: dt.date, quarantined: int, read: int, limit: float) -> None:
    """Refuse to build on a drop that `quarantine_is_small` has failed in another run.

    Args:
        day: Of the drop.
        quarantined: Its refused rows.
        read: All its rows.
        limit: The share from 0 to 1 above which nothing is to be built on a drop.

    Raises:
        CheckFailed: If a larger share was refused.
    """
    if refused_share(quarantined, read) > limit:
        raise CheckFailed(
            f"{quarantined:,} of the {read:,} rows of the drop of {day} were refused, more than {limit:.0%}",
            f"have it corrected at its source and run `episodes run {day} --refresh --reason WHY`, "
            "or raise EPISODES_QUARANTINE_LIMIT to accept it as it is",
        )


def drop_size_is_usual(accepted: Mapping[dt.date, int], days: Sequence[dt.date]) -> Verdict:
    """Whether each drop has about as many valid rows as those of the two weeks before it.

    Args:
        accepted: Accepted rows of the days, and of the days before them that have a drop.
        days: The days to check, in order.
    """
    return count_is_usual(
        DROP_SIZE_IS_USUAL,
        accepted,
        days,
        what="accepted rows",
        low=LEAST_DROP,
        high=MOST_DROP,
        hint="ask whoever fills the input whether the drop of {day} is whole; when it has been sent "
        "again, run `episodes run {day} --refresh --reason WHY`",
    )


VIEWINGS_ARE_COMPLETE = "viewings_are_complete"
VIEWINGS_ARE_KEPT = "viewings_are_kept"
VIEWINGS_COUNT_IS_USUAL = "viewings_count_is_usual"
LATE_VIEWINGS_ARE_PUBLISHED = "late_viewings_are_published"
LEAST_VIEWINGS, MOST_VIEWINGS = 0.2, 5.0


@dataclass(frozen=True)
class ViewingsRows:
    """Viewings of a day, each counted where it was.

    Attributes:
        day: The day.
        recorded: Rows by the lake's log.
        stored: Rows in the file of the day.
    """

    day: dt.date
    recorded: int
    stored: int


def viewings_are_complete(days: Sequence[ViewingsRows]) -> Verdict:
    """Whether the files hold the rows that the lake's log says."""
    return verdict_of_days(
        VIEWINGS_ARE_COMPLETE,
        [
            {"day": str(each.day), "by the log": each.recorded, "in the file": each.stored}
            for each in days
            if each.recorded != each.stored
        ],
        fault="the file in the lake does not hold the viewings that were taken",
        hint="restore the lake from a backup; `episodes lake verify` looks at every file",
        facts={"viewings in the files": sum(each.stored for each in days)},
    )


def viewings_are_kept(lost: Mapping[dt.date, tuple[int, int]], last: dt.date) -> Verdict:
    """Whether the input has all viewings that the lake has; a warning if not.

    Args:
        lost: Days of which the lake keeps what it has, since viewings of it are gone from the input: how many
            are, and how many are new there. Of some there may never have been a drop.
        last: The last day that was taken.
    """
    gone, new = (sum(each[number] for each in lost.values()) for number in (0, 1))
    return verdict_of_days(
        VIEWINGS_ARE_KEPT,
        [
            {"day": str(day), "gone from the input": day_gone, "new there": day_new}
            for day, (day_gone, day_new) in sorted(lost.items())
        ],
        fault=f"of the viewings that were taken {gone:,} are gone from the input, which has {new:,} new,",
        hint="the lake keeps those of {day}; ask whoever fills the input whether that is right; "
        f"if so, `episodes run {last} --since {{day}} --accept-lost-viewings --reason WHY` takes what it has "
        f"now of all days from {{day}} to {last}",
        facts={"viewings gone from the input": gone, "new viewings that were not taken": new},
        is_error=False,
    )


def viewings_count_is_usual(counts: Mapping[dt.date, int], days: Sequence[dt.date]) -> Verdict:
    """Whether each day has about as many viewings as those of the two weeks before it.

    Args:
        counts: Viewings of the days, and of the days before them that were taken.
        days: The days to check, in order; those without a count are left out.
    """
    checked = [day for day in days if day in counts]
    if not checked:
        return Verdict(VIEWINGS_COUNT_IS_USUAL, passed=True, message="no day was taken", is_error=False)
    return count_is_usual(
        VIEWINGS_COUNT_IS_USUAL,
        counts,
        checked,
        what="viewings",
        low=LEAST_VIEWINGS,
        high=MOST_VIEWINGS,
        hint="ask whoever fills the input whether the viewings of {day} are whole; what comes later is taken "
        "by the next days' runs",
    )


@dataclass(frozen=True)
class OutdatedDay:
    """A published day that was computed from other viewings than the lake has by now.

    Attributes:
        day: The day.
        retaken: The days whose viewings have been taken again since.
        is_of_another_lake: Whether the lake is another one than it was computed from; then `retaken` is
            unknown.
    """

    day: dt.date
    retaken: Sequence[dt.date]
    is_of_another_lake: bool = False


def late_viewings_are_published(outdated: Sequence[OutdatedDay]) -> Verdict:
    """Whether published days were computed from the viewings that the lake has now; a warning if not.

    A warning too for days of a lake which is not this one: a history whose lake was lost goes on, and what is
    published of it stays.

    Args:
        outdated: The published days that were computed from others.
    """
    if of_another_lake := [each.day for each in outdated if each.is_of_another_lake]:
        return verdict_of_days(
            LATE_VIEWINGS_ARE_PUBLISHED,
            [{"day": str(day), "computed from": "another lake"} for day in of_another_lake],
            fault="the lake is not the one from which the days were computed, which are published",
            hint="restore that lake, or let EPISODES_LAKE_URL name it; what is published stays as it is",
            facts={"published days of another lake": len(of_another_lake)},
            is_error=False,
        )
    retaken = {each.day: each.retaken for each in outdated}
    days = sorted(retaken)
    span = f"{days[0]} {days[-1]}" if len(days) > 1 else "".join(str(day) for day in days)
    command = f"episodes {'backfill' if len(days) > 1 else 'run'} {span} --rework"
    return verdict_of_days(
        LATE_VIEWINGS_ARE_PUBLISHED,
        [{"day": str(day), "taken again": ", ".join(map(str, retaken[day]))} for day in days],
        fault="viewings of the jobs' windows were taken after the days were computed, which are published",
        hint=f"`{command}` computes them with those; nothing published changes by itself",
        facts={"published days without late viewings": len(days)},
        is_error=False,
    )

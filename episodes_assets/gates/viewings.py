"""Gates of `input_viewings`: are a day's viewings whole in the lake, and are they as many as usual."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from episodes_assets.gates.bands import count_is_usual
from episodes_assets.gates.verdicts import Verdict, judge_days

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
    return judge_days(
        VIEWINGS_ARE_COMPLETE,
        [
            {"day": str(each.day), "by the log": each.recorded, "in the file": each.stored}
            for each in days
            if each.recorded != each.stored
        ],
        fault="the file in the lake does not hold the viewings that were taken",
        mend="restore the lake from a backup; `episodes lake verify` looks at every file",
        facts={"viewings in the files": sum(each.stored for each in days)},
    )


def viewings_are_kept(lost: Mapping[dt.date, tuple[int, int]]) -> Verdict:
    """Whether the input has all viewings that the lake has; a warning if not.

    Args:
        lost: Days of which the lake keeps what it has, since viewings of it are gone from the input: how many
            are, and how many are new there.
    """
    gone, new = (sum(each[number] for each in lost.values()) for number in (0, 1))
    return judge_days(
        VIEWINGS_ARE_KEPT,
        [
            {"day": str(day), "gone from the input": day_gone, "new there": day_new}
            for day, (day_gone, day_new) in sorted(lost.items())
        ],
        fault=f"of the viewings that were taken {gone:,} are gone from the input, which has {new:,} new,",
        mend="the lake keeps those of {day}; ask whoever fills the input whether that is right; "
        "if so, `episodes correct {day} --accept-lost-viewings --reason ...` takes what it has now",
        facts={"viewings gone from the input": gone, "new viewings that were not taken": new},
        is_error=False,
    )


def viewings_count_is_usual(counts: Mapping[dt.date, int], days: Sequence[dt.date]) -> Verdict:
    """Whether each day has about as many viewings as those of the two weeks before it.

    Args:
        counts: Viewings of the days, and of the days before them that were taken.
        days: The days to judge, in order; those without a count are left out.
    """
    judged = [day for day in days if day in counts]
    if not judged:
        return Verdict(VIEWINGS_COUNT_IS_USUAL, passed=True, message="no day was taken", is_error=False)
    return count_is_usual(
        VIEWINGS_COUNT_IS_USUAL,
        counts,
        judged,
        what="viewings",
        low=LEAST_VIEWINGS,
        high=MOST_VIEWINGS,
        mend="ask whoever fills the input whether the viewings of {day} are whole; what comes later is taken "
        "by the next days' runs",
    )


def late_viewings_are_published(
    outdated: Mapping[dt.date, Sequence[dt.date]], of_another_lake: Sequence[dt.date] = ()
) -> Verdict:
    """Whether published days were computed from the viewings that the lake has now; a warning if not.

    Args:
        outdated: By published day, the days whose viewings have been taken again since.
        of_another_lake: Published days that were computed from a lake which is not this one. A warning too:
            a history whose lake was lost goes on, and what is published of it stays.
    """
    if of_another_lake:
        return judge_days(
            LATE_VIEWINGS_ARE_PUBLISHED,
            [{"day": str(day), "computed from": "another lake"} for day in of_another_lake],
            fault="the lake is not the one from which the days were computed, which are published",
            mend="restore that lake, or let EPISODES_LAKE_URL name it; what is published stays as it is",
            facts={"published days of another lake": len(of_another_lake)},
            is_error=False,
        )
    days = sorted(outdated)
    span = f"{days[0]} {days[-1]}" if len(days) > 1 else "".join(str(day) for day in days)
    command = f"episodes {'backfill' if len(days) > 1 else 'run'} {span} --rework"
    return judge_days(
        LATE_VIEWINGS_ARE_PUBLISHED,
        [{"day": str(day), "taken again": ", ".join(map(str, outdated[day]))} for day in days],
        fault="viewings of the jobs' windows were taken after the days were computed, which are published",
        mend=f"`{command}` computes them with those; nothing published changes by itself",
        facts={"published days without late viewings": len(days)},
        is_error=False,
    )

"""Which days are to be planned, published or reported: pure functions of what databases and runs say.

Level-triggered on purpose: each tick decides from the current state. A missed tick costs nothing, and no run
key is remembered that would keep a replayed day from running again. A day that fails is tried again
with backoff. Reading the state and requesting runs is `sensors`, `schedules` and `runs`.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from episodes_assets.days import FIRST_DAY, ONE_DAY, days_between
from episodes_assets.ledger.progress import Progress
from episodes_assets.planning.throughput import pause_between_reports
from episodes_assets.results.publications import PublishedFrom

FIRST_PAUSE = dt.timedelta(minutes=5)
LONGEST_PAUSE = dt.timedelta(hours=6)
# Below the sensor's interval, so that a tick which comes a moment early is not skipped.
SECONDS_BETWEEN_REPORTS = 28.0
DAYS_NAMED = 10


# A day is planned once it has been over for so long: what was viewed in its last minutes has arrived by then.
REST_AFTER_A_DAY = dt.timedelta(hours=1)
DAYS_PLANNED_AT_ONCE = 31
LONGEST_PAUSE_OF_PLANNING = dt.timedelta(days=1)


@dataclass(frozen=True)
class Failures:
    """Failed attempts at a day since the last one that succeeded."""

    count: int
    latest: dt.datetime
    longest_pause: dt.timedelta = LONGEST_PAUSE

    @property
    def next_attempt(self) -> dt.datetime:
        """When to try again: exponential backoff, so that a day that always fails stays quiet."""
        doubled: dt.timedelta = FIRST_PAUSE * 2 ** min(self.count - 1, 10)
        return self.latest + min(doubled, self.longest_pause)


def newest_day_to_plan(now: dt.datetime) -> dt.date:
    """The newest day that has been over for long enough to be planned."""
    return (now - REST_AFTER_A_DAY).astimezone(dt.UTC).date() - ONE_DAY


def days_without_plan(
    newest: dt.date, tracked: dt.date | None, unplanned: Collection[dt.date]
) -> list[dt.date]:
    """The days that the daily plan is still to work, in order and without a gap.

    Args:
        newest: The newest day that may be planned.
        tracked: The newest day of the tracked history; with none at all, `newest` begins it.
        unplanned: The days up to `tracked` that are tracked and were not planned, without a gap.

    Returns:
        At most `DAYS_PLANNED_AT_ONCE` of them, the earliest.
    """
    if tracked is None:
        return [newest] if newest >= FIRST_DAY else []
    days = days_between(min([tracked + ONE_DAY, *unplanned]), newest)
    return list(islice(days, DAYS_PLANNED_AT_ONCE))


def days_to_plan(
    wanted: Sequence[dt.date],
    with_input: Collection[dt.date],
    in_flight: Collection[dt.date],
    failures: Mapping[dt.date, Failures],
    now: dt.datetime,
) -> list[dt.date]:
    """The days that one run is to plan now: the wanted ones up to the first that cannot be planned yet.

    A day builds on the one before it, so none is skipped. A day that failed is tried alone, so that it
    does not make the run of other days fail.

    Args:
        wanted: The days without plan, in order and without a gap.
        with_input: Those that have a drop, in the input or in the lake.
        in_flight: Those that a run is working on already.
        failures: Those that could not be planned, and since when.
        now: The time.
    """
    ready = list(takewhile(lambda day: day in with_input and day not in in_flight, wanted))
    if ready and ready[0] in failures:
        return ready[:1] if failures[ready[0]].next_attempt <= now else []
    return list(takewhile(lambda day: day not in failures, ready))


def why_not_planned(
    day: dt.date,
    missing_input: str,
    in_flight: Mapping[dt.date, str],
    failures: Mapping[dt.date, Failures],
) -> str:
    """Why a wanted day is not planned now.

    Args:
        day: The first one that is not planned now.
        missing_input: The message about its drop if that is missing; else empty.
        in_flight: Days that a run is working on already, with its id.
        failures: Days that could not be planned, and since when.
    """
    if run_id := in_flight.get(day):
        return f"{day} waits for run {run_id}"
    if missing_input:
        return missing_input
    if failed := failures.get(day):
        return (
            f"{day} could not be planned {failed.count} times and is tried again after "
            f"{failed.next_attempt:%Y-%m-%d %H:%M} UTC, or by `episodes run {day}`"
        )
    return f"{day} is planned with the next run"


@dataclass(frozen=True)
class Reported:
    """What was reported of a day that is being worked.

    Attributes:
        counts: Its jobs by state, when it was reported last.
        first: When it was reported first.
        last: When it was reported last.
    """

    counts: tuple[int, ...]
    first: dt.datetime
    last: dt.datetime


def days_to_report(
    counts: Mapping[dt.date, tuple[int, ...]],
    reported: Mapping[dt.date, Reported],
    in_flight: Collection[dt.date],
    now: dt.datetime,
    limit: int,
) -> tuple[list[dt.date], dict[dt.date, Reported]]:
    """Days whose progress is to be reported now.

    Args:
        counts: The jobs by state of each day that is being worked, or whose work ended with held jobs.
        reported: What was reported of days before.
        in_flight: Days with a run, which reports by itself.
        now: The time.
        limit: At most so many days, those that were not reported for the longest time first.

    Returns:
        The days, and what will then have been reported of all that are still worked.
    """
    wanted = [
        day
        for day, own in counts.items()
        if day not in in_flight
        and (day not in reported or (reported[day].counts != own and _is_due(reported[day], now)))
    ]
    wanted.sort(key=lambda day: (reported[day].last.timestamp() if day in reported else 0.0, day))
    days = wanted[:limit]
    news = {day: Reported(counts[day], reported[day].first if day in reported else now, now) for day in days}
    return days, {day: each for day, each in reported.items() if day in counts} | news


def _is_due(reported: Reported, now: dt.datetime) -> bool:
    elapsed = (now - reported.first).total_seconds()
    pause = pause_between_reports(SECONDS_BETWEEN_REPORTS, elapsed)
    return (now - reported.last).total_seconds() >= pause


def days_to_fan_out(progress: Iterable[Progress]) -> list[dt.date]:
    """Planned days whose jobs the fleet may not have.

    That includes days that were handed out and are not finished: a message that was lost is found
    missing there and sent again.
    """
    return [day.day for day in progress if day.is_open or not day.is_fanned_out]


def wants_publication(day: Progress, published: PublishedFrom | None) -> bool:
    """Whether a day's jobs are all done, and the day is not published from them yet.

    It is published again if its plan, the plan's drop or the waived jobs are others than those it was
    published from: for instance when waived jobs were retried and have succeeded.
    """
    if not (day.is_done and day.is_fanned_out):
        return False
    if published is None:
        return True
    # Days published before drops and plans' uids were recorded are left as they are.
    recorded = ((published.snapshot_id, day.snapshot_id), (published.plan_uid, day.plan_uid))
    if any(then is not None and then != now for then, now in recorded):
        return True
    current = (day.plan_id, day.waived, day.decision)
    return current != (published.plan_id, published.left_out, published.decision)


def days_to_publish(
    progress: Iterable[Progress],
    published_plans: Mapping[dt.date, PublishedFrom],
    in_flight: Mapping[dt.date, str],
    failures: Mapping[dt.date, Failures],
    now: dt.datetime,
    limit: int,
) -> list[dt.date]:
    """Days that are to be published now.

    Args:
        progress: How far each day's current plan is.
        published_plans: What each published day was published from.
        in_flight: Days that a run is working on already, with its id.
        failures: Days that could not be published, and since when.
        now: The time.
        limit: At most so many runs are to be in flight for finished days; the earliest days go first.
    """
    finished = [day.day for day in progress if wants_publication(day, published_plans.get(day.day))]
    room = limit - len({in_flight[day] for day in finished if day in in_flight})
    wanted = [
        day
        for day in finished
        if day not in in_flight and (day not in failures or failures[day].next_attempt <= now)
    ]
    return sorted(wanted)[: max(room, 0)]


def why_none_is_published(
    progress: Iterable[Progress],
    published_plans: Mapping[dt.date, PublishedFrom],
    in_flight: Mapping[dt.date, str],
    failures: Mapping[dt.date, Failures],
) -> str:
    """Why finished days are not published now, the earliest first; arguments as of `days_to_publish`."""
    wanted = sorted(day.day for day in progress if wants_publication(day, published_plans.get(day.day)))
    reasons = []
    for day in wanted[:DAYS_NAMED]:
        if run_id := in_flight.get(day):
            reasons.append(f"{day} waits for run {run_id}")
        elif failed := failures.get(day):
            reasons.append(
                f"{day} could not be published {failed.count} times and is tried again at "
                f"{failed.next_attempt:%Y-%m-%d %H:%M} UTC, or by `episodes run {day}`"
            )
        else:
            reasons.append(f"{day} waits for the runs of others")
    if len(wanted) > DAYS_NAMED:
        reasons.append(f"and {len(wanted) - DAYS_NAMED:,} more days wait")
    return "; ".join(reasons) or "no finished day waits to be published"

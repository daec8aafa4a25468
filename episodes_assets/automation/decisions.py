"""Which days want what: pure functions of what the databases and Dagster's runs say.

Level-triggered on purpose. A missed tick costs nothing, and no run key is remembered that would keep a
replayed day from ever running again.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from episodes_assets.stores.ledger import Progress
from episodes_assets.stores.publications import PublishedFrom

FIRST_PAUSE = dt.timedelta(minutes=5)
LONGEST_PAUSE = dt.timedelta(hours=6)


@dataclass(frozen=True)
class Failures:
    """Failed attempts to publish a day since it was published last."""

    count: int
    latest: dt.datetime

    @property
    def next_attempt(self) -> dt.datetime:
        """When to try again: pauses double, so that a day that cannot be published stays quiet."""
        doubled: dt.timedelta = FIRST_PAUSE * 2 ** min(self.count - 1, 10)
        return self.latest + min(doubled, LONGEST_PAUSE)


def days_to_fan_out(progress: Iterable[Progress]) -> list[dt.date]:
    """Planned days whose jobs the fleet may not have.

    That includes days that were handed out and are not finished: a message that was lost is found
    missing there and sent again.
    """
    return [day.day for day in progress if day.is_open or not day.is_fanned_out]


def wants_publication(day: Progress, published: PublishedFrom | None) -> bool:
    """Whether a day's jobs are all done, and what is published is not made of them.

    The plan, its snapshot and what is left out by decision are looked at: when waived jobs were retried and
    have succeeded, the day is published again with their rows.
    """
    if not (day.is_done and day.is_fanned_out):
        return False
    if published is None:
        return True
    # Days published before snapshots were recorded are left as they are.
    snapshots = {day.snapshot_id, published.snapshot_id or day.snapshot_id}
    current = (day.plan_id, day.waived, day.decision)
    return len(snapshots) > 1 or current != (published.plan_id, published.left_out, published.decision)


def days_to_publish(
    progress: Iterable[Progress],
    published_plans: Mapping[dt.date, PublishedFrom],
    in_flight: Collection[dt.date],
    failures: Mapping[dt.date, Failures],
    now: dt.datetime,
    limit: int,
) -> list[dt.date]:
    """Days that want to be published and may be by now.

    Args:
        progress: How far each day's current plan is.
        published_plans: What each published day was published from.
        in_flight: Days that a run is working on already.
        failures: Days that could not be published, and since when.
        now: The time.
        limit: At most so many days, the earliest first.
    """
    wanted = [
        day.day
        for day in progress
        if wants_publication(day, published_plans.get(day.day))
        and day.day not in in_flight
        and (day.day not in failures or failures[day.day].next_attempt <= now)
    ]
    return sorted(wanted)[:limit]

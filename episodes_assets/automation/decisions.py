"""Which days want what: pure functions of what the databases and Dagster's runs say.

Level-triggered on purpose. A missed tick costs nothing, and no run key is remembered that would keep a
replayed day from ever running again.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from episodes_assets.stores.ledger import Progress

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


def days_to_publish(
    progress: Iterable[Progress],
    published_plans: Mapping[dt.date, int],
    in_flight: Collection[dt.date],
    failures: Mapping[dt.date, Failures],
    now: dt.datetime,
    limit: int,
) -> list[dt.date]:
    """Days whose jobs have all succeeded and which are not published from their current plan.

    Args:
        progress: How far each day's current plan is.
        published_plans: The plan each published day was published from.
        in_flight: Days that a run is working on already.
        failures: Days that could not be published, and since when.
        now: The time.
        limit: At most so many days, the earliest first.
    """
    wanted = [
        day.day
        for day in progress
        if day.is_done
        and day.is_fanned_out
        and published_plans.get(day.day) != day.plan_id
        and day.day not in in_flight
        and (day.day not in failures or failures[day.day].next_attempt <= now)
    ]
    return sorted(wanted)[:limit]

"""The sensor that reports progress in daily operation, when no run waits for the fleet."""

import datetime as dt
import json

import dagster as dg

from episodes_assets.assets.progress_events import DAYS_REPORTED, counts_of, observations
from episodes_assets.automation.decisions import Told, days_to_report
from episodes_assets.automation.sensors import days_in_flight
from episodes_assets.errors import EpisodesError
from episodes_assets.ledger import progress
from episodes_assets.resources.databases import QueueDatabase

# Dagster's daemon looks at sensors every 5 seconds.
REPORT_SECONDS = 29


@dg.sensor(
    minimum_interval_seconds=REPORT_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="While the fleet works on a day that no run waits for, reports on the page of job_outcomes "
    "how far it is: at most every 30 seconds a day, and only when something changed. On by default.",
)
def report_progress(
    context: dg.SensorEvaluationContext, queue_database: QueueDatabase
) -> dg.SensorResult | dg.SkipReason:
    """Observe the days that moved."""
    now = dt.datetime.now(dt.UTC)
    told = read_cursor(context.cursor)
    try:
        with queue_database.connect_to_read() as queue:
            counts = {day.day: counts_of(day) for day in progress.read_progress(queue) if _is_worked(day)}
            if not counts and not told:
                return dg.SkipReason("the fleet has no day to work on")
            in_flight = days_in_flight(context.instance, now)
            days, told = days_to_report(counts, told, in_flight, now, DAYS_REPORTED)
            events = observations(queue, days) if days else []
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    return dg.SensorResult(asset_events=events, cursor=write_cursor(told))


def _is_worked(day: progress.Progress) -> bool:
    """Whether the fleet has it, and it is not finished: what is done, its materialisation tells."""
    return day.is_fanned_out and not day.is_done


def read_cursor(cursor: str | None) -> dict[dt.date, Told]:
    """What was told, as `write_cursor` wrote it."""
    return {
        dt.date.fromisoformat(day): Told(
            tuple(counts), dt.datetime.fromisoformat(first), dt.datetime.fromisoformat(last)
        )
        for day, (counts, first, last) in json.loads(cursor or "{}").items()
    }


def write_cursor(told: dict[dt.date, Told]) -> str:
    """What was told of each day that is still worked."""
    return json.dumps(
        {
            day.isoformat(): [each.counts, each.first.isoformat(), each.last.isoformat()]
            for day, each in told.items()
        }
    )

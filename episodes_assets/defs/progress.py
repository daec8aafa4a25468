"""Progress of a day's jobs as events of Dagster, shown on the asset's page while the fleet works.

Counting is `ledger/progress.py`; speeds and pauses between reports are computed in `planning/throughput.py`.
"""

import datetime as dt
import time
from collections.abc import Sequence
from typing import Any

import dagster as dg

from episodes_assets.defs.metadata import table
from episodes_assets.ledger import held
from episodes_assets.ledger.progress import DayProgress, FleetProgress, Progress, read_fleet_progress
from episodes_assets.planning.throughput import pause_between_reports
from episodes_assets.postgres.connect import Connection

REPORT_SECONDS = 10.0
# Of a range of days, so many are reported at a time: those that moved and were not reported the longest.
DAYS_REPORTED = 10
FAILED_SHOWN = 20

Counts = tuple[int, int, int, int, int]


def counts_of(day: Progress) -> Counts:
    """What changes when a day moves."""
    return (day.waiting, day.running, day.succeeded, day.held, day.waived)


def observation(day: DayProgress, workers: int, failed: Sequence[held.HeldJob] = ()) -> dg.AssetObservation:
    """How far a day's jobs are.

    Args:
        day: The day.
        workers: Workers that live.
        failed: Jobs of it that failed for the last time; shown with their errors.
    """
    counts = day.counts
    metadata: dict[str, Any] = {
        "jobs": counts.jobs,
        "waiting": counts.waiting,
        "running": counts.running,
        "succeeded": counts.succeeded,
        "held": counts.held,
        "left out": counts.waived,
        "jobs per second": round(day.jobs_per_second, 2),
        "workers alive": workers,
    }
    if day.ends_at is not None:
        metadata["estimated end"] = dg.MetadataValue.timestamp(day.ends_at)
    if failed:
        metadata["failed jobs"] = failed_table(failed)
    return dg.AssetObservation(
        asset_key="job_outcomes",
        partition=day.counts.day.isoformat(),
        description=f"{counts.succeeded + counts.failed:,} of {counts.jobs:,} jobs finished",
        metadata=metadata,
    )


def observations(connection: Connection, days: Sequence[dt.date]) -> list[dg.AssetObservation]:
    """How far some days are now, those that ended badly with their failed jobs."""
    found: FleetProgress = read_fleet_progress(connection, days)
    return [
        observation(
            day,
            found.workers,
            held.read_held_first(connection, [day.counts.plan_id], FAILED_SHOWN)
            if day.counts.held and not day.counts.is_open
            else (),
        )
        for day in found.days
    ]


def failed_table(failed: Sequence[held.HeldJob]) -> dg.TableMetadataValue:
    """Jobs that failed for the last time, and why."""
    return table(
        [
            {
                "day": str(job.day),
                "epid": job.epid,
                "algorithm": job.algorithm_id,
                "starts": job.starts,
                "error": job.error,
                "left out": "yes" if job.is_waived else "no",
            }
            for job in failed
        ]
    )


class ProgressReports:
    """Reports how far a step's days are while it waits for them.

    Args:
        context: Of the step.
        connection: To `queue`.
    """

    def __init__(self, context: dg.AssetExecutionContext, connection: Connection) -> None:
        self._context = context
        self._connection = connection
        self._began = self._last = time.monotonic()
        self._told: dict[dt.date, Counts] = {}
        self._told_at: dict[dt.date, float] = {}

    def report(self, progress: Sequence[Progress]) -> None:
        """Report the days that moved, if it is time to."""
        now = time.monotonic()
        if now - self._last < pause_between_reports(REPORT_SECONDS, now - self._began):
            return
        self._last = now
        moved = [day for day in progress if self._told.get(day.day) != counts_of(day)]
        moved.sort(key=lambda day: (self._told_at.get(day.day, -1.0), -day.running, day.day))
        for day in moved[:DAYS_REPORTED]:
            self._told[day.day], self._told_at[day.day] = counts_of(day), now
        self._log([day.day for day in moved[:DAYS_REPORTED]])

    def report_failures(self, progress: Sequence[Progress]) -> None:
        """Report the days that ended with held jobs, and these: such days get no materialisation."""
        self._log([day.day for day in progress if day.held][:DAYS_REPORTED])

    def _log(self, days: Sequence[dt.date]) -> None:
        if days:
            for event in observations(self._connection, days):
                self._context.log_event(event)

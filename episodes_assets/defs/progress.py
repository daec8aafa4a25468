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
# How many days are reported at a time: of those that progressed, the ones not reported for longest.
DAYS_REPORTED = 10
FAILED_SHOWN = 20

Counts = tuple[int, int, int, int, int]


def counts_of(day: Progress) -> Counts:
    """The numbers of a day that are compared to find whether it has progressed."""
    return (day.waiting, day.running, day.succeeded, day.held, day.waived)


def observation(day: DayProgress, workers: int, failed: Sequence[held.HeldJob] = ()) -> dg.AssetObservation:
    """How far a day's jobs are.

    Args:
        day: The day.
        workers: How many workers are alive.
        failed: Its held and waived jobs, which are shown with their errors.
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
    """The progress of some days now; for days that ended with held jobs, these are listed."""
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
    """Held and waived jobs with their errors, as a table."""
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
        self._reported: dict[dt.date, Counts] = {}
        self._reported_at: dict[dt.date, float] = {}

    def report(self, progress: Sequence[Progress]) -> None:
        """Report the days that have progressed, if the pause since the last report is over."""
        now = time.monotonic()
        if now - self._last < pause_between_reports(REPORT_SECONDS, now - self._began):
            return
        self._last = now
        moved = [day for day in progress if self._reported.get(day.day) != counts_of(day)]
        moved.sort(key=lambda day: (self._reported_at.get(day.day, -1.0), -day.running, day.day))
        for day in moved[:DAYS_REPORTED]:
            self._reported[day.day], self._reported_at[day.day] = counts_of(day), now
        self._log([day.day for day in moved[:DAYS_REPORTED]])

    def report_failures(self, progress: Sequence[Progress]) -> None:
        """Report the days that ended with held jobs, as these get no materialisation."""
        self._log([day.day for day in progress if day.held][:DAYS_REPORTED])

    def _log(self, days: Sequence[dt.date]) -> None:
        if days:
            for event in observations(self._connection, days):
                self._context.log_event(event)

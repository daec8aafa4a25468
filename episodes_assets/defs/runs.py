"""Which days a run covers, is in flight for, or has failed at, read from Dagster's instance.

What follows from that is decided in `decisions`.
"""

import datetime as dt
from collections.abc import Collection
from itertools import takewhile

import dagster as dg

from episodes_assets.defs.decisions import LONGEST_PAUSE_OF_PLANNING, Failures
from episodes_assets.defs.jobs import plan_day, publish_day
from episodes_assets.defs.partitions import daily

# More failed runs than the longest pause between two takes.
RUNS_LOOKED_AT = 50
IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# Runs of these statuses have a process, which may be killed. A queued run has none, and may wait for long.
HAVE_A_PROCESS = {*IN_PROGRESS} - {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED}
# More than the longest silence of a living step, which is the pause before it looks for a drop again.
LONGEST_SILENCE = dt.timedelta(minutes=15)
PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def days_in_flight(instance: dg.DagsterInstance, now: dt.datetime) -> dict[dt.date, str]:
    """The days that any queued or running run covers, with its id.

    A run of a command that was killed stays STARTED until its time limit, so one that is silent is left out.
    """
    days: dict[dt.date, str] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS)):
        covered = days_of_run(record.dagster_run)
        if covered and not is_silent(instance, record, now):
            days |= dict.fromkeys(covered, record.dagster_run.run_id)
    return days


def days_of_run(run: dg.DagsterRun) -> list[dt.date]:
    """The days that a run is to work on; none when it has no partition."""
    if PARTITION in run.tags:
        return [dt.date.fromisoformat(run.tags[PARTITION])]
    if RANGE_START in run.tags and RANGE_END in run.tags:
        span = dg.PartitionKeyRange(run.tags[RANGE_START], run.tags[RANGE_END])
        return [dt.date.fromisoformat(key) for key in daily.get_partition_keys_in_range(span)]
    return []


def is_silent(instance: dg.DagsterInstance, record: dg.RunRecord, now: dt.datetime) -> bool:
    """Whether a run that has a process has reported nothing for too long: no status change, no log line."""
    return silent_since(instance, record, now) is not None


def silent_since(instance: dg.DagsterInstance, record: dg.RunRecord, now: dt.datetime) -> dt.datetime | None:
    """Since when a run that has a process has reported nothing; None if that is not too long."""
    latest = record.update_timestamp
    if record.dagster_run.status not in HAVE_A_PROCESS or now - latest <= LONGEST_SILENCE:
        return None
    newest = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    if newest:
        latest = max(latest, dt.datetime.fromtimestamp(newest[0].timestamp, dt.UTC))
    return latest if now - latest > LONGEST_SILENCE else None


def failed_attempts(
    instance: dg.DagsterInstance, days: Collection[dt.date], in_flight: Collection[dt.date]
) -> dict[dt.date, Failures]:
    """For each day, the runs of `publish_day` since the last one that succeeded which ended without success.

    One that was cancelled is among them: whoever did that does not want another one at once. So is one whose
    process was killed. Days that are in flight are left out.
    """
    found: dict[dt.date, Failures] = {}
    for day in set(days) - set(in_flight):
        records = instance.get_run_records(
            dg.RunsFilter(job_name=publish_day.name, tags={PARTITION: day.isoformat()}), limit=12
        )
        if failed := list(takewhile(_has_not_succeeded, records)):
            found[day] = Failures(len(failed), failed[0].update_timestamp)
    return found


def _has_not_succeeded(record: dg.RunRecord) -> bool:
    return record.dagster_run.status is not dg.DagsterRunStatus.SUCCESS


def failed_plannings(
    instance: dg.DagsterInstance, days: Collection[dt.date], in_flight: Collection[dt.date]
) -> dict[dt.date, Failures]:
    """For each day, the runs of `plan_day` since the last one that succeeded which ended without success.

    One that was cancelled is among them, and so is one whose process was killed.
    """
    found: dict[dt.date, Failures] = {}
    succeeded: set[dt.date] = set()
    records = instance.get_run_records(dg.RunsFilter(job_name=plan_day.name), limit=RUNS_LOOKED_AT)
    for record in records:
        covered = (set(days_of_run(record.dagster_run)) & set(days)) - succeeded - set(in_flight)
        if record.dagster_run.status is dg.DagsterRunStatus.SUCCESS:
            succeeded |= covered
            continue
        for day in covered:
            latest = found[day].latest if day in found else record.update_timestamp
            count = found[day].count + 1 if day in found else 1
            found[day] = Failures(count, latest, LONGEST_PAUSE_OF_PLANNING)
    return found

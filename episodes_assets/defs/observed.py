"""What Dagster's instance has on record of runs, ticks, checks and daemons, and what is observed for alerts.

Read by the sensor `alert_people`, by the web server's watch of the daemon, and by its metrics. Each statement
asks for the newest ones or for a bounded number, so that it takes as long after years as today. Which alerts
follow is decided in `alerts/conditions.py`.
"""

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from episodes_assets import failures
from episodes_assets.alerts import conditions
from episodes_assets.checks.ledger import EACH_OPEN_DAY_PROGRESSES, stalled_days
from episodes_assets.checks.results import YESTERDAY_IS_PUBLISHED
from episodes_assets.defs.assets.published_results import check_freshness
from episodes_assets.defs.resources import ResultsDatabase
from episodes_assets.defs.runs import IN_PROGRESS, PARTITION, RANGE_START, days_of_run
from episodes_assets.errors import EpisodesError
from episodes_assets.ledger.progress import open_days, read_progress
from episodes_assets.postgres.connect import Connection
from episodes_assets.settings import FAILED_RUNS_DAYS, Settings

# A failed run whose days nobody runs again is forgotten after this time.
FAILED_WITHIN = dt.timedelta(days=FAILED_RUNS_DAYS)
FAILED_LOOKED_AT, EVENTS_LOOKED_AT = 20, 5
# Ticks and runs are counted over these times.
TICKS_WITHIN, RUNS_WITHIN = dt.timedelta(hours=1), dt.timedelta(days=1)
SCHEDULED_WITHIN = dt.timedelta(days=2)
MOST_COUNTED = 1_000
# These two are observed in the databases themselves, which says more.
_OBSERVED_OTHERWISE = {EACH_OPEN_DAY_PROGRESSES, YESTERDAY_IS_PUBLISHED}
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def observe(
    instance: dg.DagsterInstance,
    checks: Collection[dg.AssetCheckKey],
    queue: Connection,
    results_database: ResultsDatabase,
    settings: Settings,
    now: dt.datetime,
) -> conditions.Observed:
    """What is observed of all but the daemon: the web server watches that.

    Args:
        instance: Dagster's.
        checks: The asset checks that there are.
        queue: A connection to `queue`.
        results_database: Where it cannot be read, what it says of freshness is unknown.
        settings: Say what a stall is, and by when a day is due.
        now: The time.
    """
    not_published, results_away = _look_at_results(results_database, settings, now)
    failed, are_all = failed_runs(instance, now)
    return conditions.Observed(
        failed_runs=failed,
        failed_runs_are_all=are_all,
        failed_checks=failed_checks(instance, checks),
        stalled=stalled(queue, settings, now),
        held=[
            conditions.HeldDay(day.day, day.held)
            for day in read_progress(queue)
            if day.held and not day.is_open
        ],
        not_published=not_published,
        failed_ticks=failed_ticks(instance, now),
        results_away=results_away,
    )


def stalled(queue: Connection, settings: Settings, now: dt.datetime) -> dict[dt.date, str]:
    """Of each day that makes no progress, what is stuck and what to do."""
    found = open_days(queue, dt.timedelta(seconds=settings.heartbeat_seconds))
    limit = dt.timedelta(minutes=settings.stall_minutes)
    return {day.day: day.describe() for day in stalled_days(found, now, limit)}


def _look_at_results(
    database: ResultsDatabase, settings: Settings, now: dt.datetime
) -> tuple[str | None, str]:
    """Why the day that is due is not published, and why the database cannot be read; empty if neither."""
    try:
        with database.connect_to_read() as results:
            verdict = check_freshness(results, now, settings.published_by_hour)
    except EpisodesError as error:
        return None, str(error)
    return "" if verdict.passed else verdict.message, ""


def failed_runs(instance: dg.DagsterInstance, now: dt.datetime) -> tuple[list[conditions.FailedRun], bool]:
    """Runs that failed within `FAILED_WITHIN` and whose work no later run has done, the newest first.

    The work of a run is those of its steps that it has not done, for each of its days; of one without days,
    for its job. So a run that decides about held jobs of a day does not do the work of one that computes it.

    Returns:
        Of the newest `FAILED_LOOKED_AT` that failed, those whose work is not done; and whether no others
        failed.
    """
    failed = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - FAILED_WITHIN),
        limit=FAILED_LOOKED_AT + 1,
    )
    looked_at = failed[:FAILED_LOOKED_AT]
    open_work = _open_work(instance, looked_at)
    found = [
        _describe(instance, each.dagster_run) for each in looked_at if open_work[each.dagster_run.run_id]
    ]
    return found, len(failed) <= FAILED_LOOKED_AT


# A day, or the job of a run without days; and a step of it.
_Work = tuple[dt.date | str, str]


def _open_work(instance: dg.DagsterInstance, failed: Sequence[dg.RunRecord]) -> dict[str, set[_Work]]:
    """Of each failed run, by its id, the work that no run has done which was created later.

    Asked for by the work itself, so that however many other runs have succeeded since, none is missed.
    """
    steps_of = _StepsOfRuns(instance)
    open_work = {
        each.dagster_run.run_id: _work_of(each.dagster_run, steps_of.left_by(each.dagster_run))
        for each in failed
    }
    if not failed:
        return open_work
    oldest = min(record.create_timestamp for record in failed)
    wanted_of = {of for each in open_work.values() for of, _ in each}
    days = sorted(of for of in wanted_of if isinstance(of, dt.date))
    jobs = sorted(of for of in wanted_of if isinstance(of, str))
    asked: list[dict[str, Any]] = [{"job_name": job} for job in jobs]
    if days:
        asked.append({"tags": {PARTITION: [day.isoformat() for day in days]}})
        # A run of several days has no tag for each of them.
        starts = {start for _, each in instance.get_run_tags([RANGE_START]) for start in each}
        before = sorted(start for start in starts if start <= days[-1].isoformat())
        asked.append({"tags": {RANGE_START: before}})
    created = {each.dagster_run.run_id: each.create_timestamp for each in failed}
    for wanted in asked:
        since = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], updated_after=oldest, **wanted)
        for record in instance.get_run_records(since):
            done = _work_of(record.dagster_run, steps_of.planned_by(record.dagster_run))
            for run_id, work in open_work.items():
                if record.create_timestamp > created[run_id]:
                    work.difference_update(done)
    return open_work


def _work_of(run: dg.DagsterRun, steps: Collection[str]) -> set[_Work]:
    days_or_job: Sequence[dt.date | str] = days_of_run(run)
    return {(of, step) for of in days_or_job or [run.job_name] for step in steps}


class _StepsOfRuns:
    """The steps of runs; those of a job are read once."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._planned: dict[str, frozenset[str]] = {}

    def planned_by(self, run: dg.DagsterRun) -> frozenset[str]:
        """The steps that a run was to do."""
        if run.step_keys_to_execute is not None:
            return frozenset(run.step_keys_to_execute)
        snapshot_id = run.execution_plan_snapshot_id
        if snapshot_id is None:  # it was never planned
            return frozenset({run.job_name})
        if snapshot_id not in self._planned:
            plan = self._instance.get_execution_plan_snapshot(snapshot_id)
            self._planned[snapshot_id] = frozenset(plan.step_keys_to_execute)
        return self._planned[snapshot_id]

    def left_by(self, run: dg.DagsterRun) -> frozenset[str]:
        """The steps that a failed run has not done; if it has done all and failed then, all."""
        found = self._instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
        events = [record.event_log_entry.dagster_event for record in found.records]
        planned = self.planned_by(run)
        return planned - {event.step_key for event in events if event and event.step_key} or planned


def _describe(instance: dg.DagsterInstance, run: dg.DagsterRun) -> conditions.FailedRun:
    cause, message = _root_cause(instance, run.run_id)
    return conditions.FailedRun(run.run_id, run.job_name, days_of_run(run), cause, message)


def _root_cause(instance: dg.DagsterInstance, run_id: str) -> tuple[str, str]:
    """The name of the error at the root of a run's failure, and that error in one line."""
    of_type = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    found = instance.get_records_for_run(run_id, of_type=of_type, limit=EVENTS_LOOKED_AT)
    for record in found.records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure:
            data = event.step_failure_data
            error, user = data.error, data.user_failure_data
            said = user.description if user is not None else None
        else:
            error, said = event.job_failure_data.error, event.message
        if error is not None and (known := failures.explain_recorded(error)) is not None:
            return type(known).__name__, said or str(known)
        if error is not None:
            defect = failures.name_recorded_defect(error)
            return failures.name_recorded_class(error), said or defect
        if said:
            return "run failure", said
    return "run failure", "it ended without a reason on record; its process may have been killed"


def failed_checks(
    instance: dg.DagsterInstance, checks: Collection[dg.AssetCheckKey]
) -> list[conditions.FailedCheck]:
    """The asset checks whose newest evaluation failed, by name."""
    wanted = [key for key in checks if key.name not in _OBSERVED_OTHERWISE]
    # One statement for each: all together would read all evaluations of years.
    records = {
        key: instance.event_log_storage.get_asset_check_execution_history(
            key,
            limit=1,
            status={AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED},
        )
        for key in sorted(wanted)
    }
    found = []
    for key, newest in records.items():
        for record in newest:
            event = record.event.dagster_event if record.event else None
            if record.status is AssetCheckExecutionRecordStatus.FAILED and event is not None:
                evaluation = event.asset_check_evaluation_data
                found.append(
                    conditions.FailedCheck(
                        asset=key.asset_key.to_user_string(),
                        check=key.name,
                        is_error=evaluation.severity is dg.AssetCheckSeverity.ERROR,
                        message=evaluation.description or "",
                    )
                )
    return found


def failed_ticks(instance: dg.DagsterInstance, now: dt.datetime) -> list[conditions.FailedTicks]:
    """The sensors and schedules that are switched on and whose newest tick failed.

    Ticks of more than `TICKS_WITHIN` ago, of a schedule `SCHEDULED_WITHIN`, are not looked at: a sensor of
    five seconds leaves more than a hundred thousand a week.
    """
    found = []
    for state in switched_on(instance):
        is_schedule = state.instigator_type is InstigatorType.SCHEDULE
        ticks = instance.get_ticks(
            state.instigator_origin_id,
            state.selector_id,
            after=(now - (SCHEDULED_WITHIN if is_schedule else TICKS_WITHIN)).timestamp(),
            limit=conditions.FAILED_TICKS_OF_A_SENSOR,
            statuses=[TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE],
        )
        errors = []
        for tick in ticks:
            if tick.status is not TickStatus.FAILURE:
                break
            errors.append(tick.error)
        if errors:
            known = failures.explain_recorded(errors[0]) if errors[0] else None
            defect = failures.name_recorded_defect(errors[0]) if errors[0] else "without an error on record"
            found.append(
                conditions.FailedTicks(
                    state.instigator_name, is_schedule, len(errors), str(known) if known else defect
                )
            )
    return found


def switched_on(instance: dg.DagsterInstance) -> Iterator[InstigatorState]:
    """The sensors and schedules that a daemon has evaluated, or somebody has switched on, and that are on."""
    for state in instance.all_instigator_state():
        if state.instigator_type in (InstigatorType.SENSOR, InstigatorType.SCHEDULE) and state.is_running:
            yield state


@dataclass(frozen=True)
class InstanceFigures:
    """Dagster's instance in numbers.

    Attributes:
        in_progress: Runs that have not ended, by status.
        ended: Runs that ended within `RUNS_WITHIN`, by status; counted up to `MOST_COUNTED`.
        oldest_queued_seconds: How long the run that is queued longest has waited; None when none is.
        failed_ticks: Of each sensor and schedule that is on, ticks that failed within `TICKS_WITHIN`.
        heartbeats: How many seconds ago each daemon has sent a heartbeat.
    """

    in_progress: Mapping[str, int]
    ended: Mapping[str, int]
    oldest_queued_seconds: float | None
    failed_ticks: Mapping[str, int]
    heartbeats: Mapping[str, float]


def read_instance_figures(instance: dg.DagsterInstance, now: dt.datetime) -> InstanceFigures:
    """Dagster's instance in numbers, as it is now."""
    running = instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS), limit=MOST_COUNTED)
    statuses = Counter(record.dagster_run.status.value for record in running)
    queued = [
        record.create_timestamp
        for record in running
        if record.dagster_run.status is dg.DagsterRunStatus.QUEUED
    ]
    return InstanceFigures(
        in_progress={status.value: statuses[status.value] for status in IN_PROGRESS},
        ended={
            status.value: instance.get_runs_count(
                dg.RunsFilter(statuses=[status], updated_after=now - RUNS_WITHIN)
            )
            for status in _ENDED
        },
        oldest_queued_seconds=(now - min(queued)).total_seconds() if queued else None,
        failed_ticks={
            state.instigator_name: len(
                instance.get_ticks(
                    state.instigator_origin_id,
                    state.selector_id,
                    after=(now - TICKS_WITHIN).timestamp(),
                    limit=MOST_COUNTED,
                    statuses=[TickStatus.FAILURE],
                )
            )
            for state in switched_on(instance)
        },
        heartbeats=heartbeat_ages(instance, now),
    )


def heartbeat_ages(instance: dg.DagsterInstance, now: dt.datetime) -> dict[str, float]:
    """How many seconds ago each of the daemon's threads has sent a heartbeat; empty if none ever did.

    A thread that `dagster.yaml` does not ask for any more sends none, and its last one stays on record.
    """
    required = set(instance.get_required_daemon_types())
    return {
        name: max(now.timestamp() - heartbeat.timestamp, 0.0)
        for name, heartbeat in instance.get_daemon_heartbeats().items()
        if name in required
    }

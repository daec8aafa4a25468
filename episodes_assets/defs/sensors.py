"""The sensors: thin around the decisions, and quiet when a database cannot be read.

They hand planned days to the workers, publish finished ones, report progress while no run waits for the
workers, and raise alerts: checks that fail, with what to do, and pass again when it is fixed, and messages to
people. What they decide is `decisions` and `alerts/`.
"""

import datetime as dt
import json
from collections.abc import Iterator

import dagster as dg

from episodes_assets.alerts.conditions import assess
from episodes_assets.alerts.lifecycle import State
from episodes_assets.defs import decisions, jobs, runs, steps
from episodes_assets.defs.assets import job_outcomes, published_results
from episodes_assets.defs.observed import observe
from episodes_assets.defs.progress import DAYS_REPORTED, counts_of, observations
from episodes_assets.defs.resources import QueueDatabase, ResultsDatabase
from episodes_assets.errors import BadSetting, EpisodesError
from episodes_assets.ledger import dispatch, progress
from episodes_assets.ledger.progress import read_progress
from episodes_assets.outbox import delivery
from episodes_assets.outbox.delivery import alert_people as tell
from episodes_assets.outbox.records import Evaluator
from episodes_assets.results import publications
from episodes_assets.settings import Settings

STALL_SECONDS = 29
FRESHNESS_SECONDS = 60


@dg.sensor(
    minimum_interval_seconds=STALL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Raises an alert, as a failed check of job_outcomes, when a day with unfinished jobs makes "
    "no progress, and takes it back when it does. On by default.",
)
def alert_of_stalls(
    context: dg.SensorEvaluationContext, queue_database: QueueDatabase, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult | dg.SkipReason:
    """Report once when the set of stalled days changes."""
    try:
        with queue_database.connect_to_read() as queue:
            verdict = job_outcomes.check_progress(queue, settings)
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    names = ", ".join(str(row["day"]) for row in verdict.offending)
    if names == (context.cursor or ""):
        return dg.SkipReason(f"still stalled: {names}" if names else "each open day makes progress")
    (context.log.info if verdict.passed else context.log.error)(verdict.message)
    return dg.SensorResult(asset_events=[steps.check_evaluation(verdict, "job_outcomes")], cursor=names)


@dg.sensor(
    minimum_interval_seconds=FRESHNESS_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks whether yesterday is published by EPISODES_PUBLISHED_BY_HOUR and says so in the check "
    "`yesterday_is_published`. On by default.",
)
def freshness(
    context: dg.SensorEvaluationContext,
    results_database: ResultsDatabase,
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    """Evaluate the check anew whenever its verdict changes, and once an hour.

    Dagster's own freshness policies look at the latest materialisation of any partition, so that a
    backfill of an old day would count as yesterday's publication.
    """
    now = _now()
    try:
        with results_database.connect_to_read() as results:
            verdict = published_results.check_freshness(results, now, settings.published_by_hour)
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    said = f"{now:%Y-%m-%d %H} {verdict.passed} {verdict.message}"
    if said == context.cursor:
        return dg.SkipReason(verdict.message)
    return dg.SensorResult(asset_events=[steps.check_evaluation(verdict, "published_results")], cursor=said)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


# Dagster's daemon evaluates sensors every 5 seconds; with just that interval it would skip every other time.
SENSOR_SECONDS = 4
# More would keep whatever is launched next, such as the planning of a day, waiting in Dagster's queue.
PUBLISHED_AT_ONCE = 10


@dg.sensor(
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Hands the jobs of planned days to the fleet, and sends again what was lost. On by default.",
)
def fan_out(queue_database: QueueDatabase) -> dg.SkipReason:
    """Hand out each planned day; a tick that does nothing else needs no run."""
    try:
        with queue_database.connect() as queue:
            sent = [
                dispatch.fan_out_day(queue, day) for day in decisions.days_to_fan_out(read_progress(queue))
            ]
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    done = [f"{each.day}: {each.jobs:,} jobs in {each.messages:,} messages" for each in sent if each.messages]
    return dg.SkipReason("handed out " + "; ".join(done) if done else "nothing to hand out")


@dg.sensor(
    job=jobs.publish_day,
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Collects and publishes each day whose jobs are all done, or waived by a recorded decision. "
    "On by default.",
)
def publish_finished_days(
    context: dg.SensorEvaluationContext,
    queue_database: QueueDatabase,
    results_database: ResultsDatabase,
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request a run for each such day that none is in flight for."""
    try:
        with queue_database.connect_to_read() as queue:
            progress = read_progress(queue)
        with results_database.connect_to_read() as results:
            plans = publications.published_plans(results)
    except EpisodesError as error:
        yield dg.SkipReason(str(error))
        return
    open_days = [day for day in progress if decisions.wants_publication(day, plans.get(day.day))]
    now = dt.datetime.now(dt.UTC)
    in_flight = runs.days_in_flight(context.instance, now) if open_days else {}
    failures = runs.failed_attempts(context.instance, {day.day for day in open_days}, in_flight)
    days = decisions.days_to_publish(open_days, plans, in_flight, failures, now, PUBLISHED_AT_ONCE)
    for day in days:
        yield dg.RunRequest(partition_key=day.isoformat())
    if not days:
        yield dg.SkipReason(decisions.why_none_is_published(open_days, plans, in_flight, failures))


# Dagster's daemon evaluates sensors every 5 seconds.
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
    """Observe the days that have progressed."""
    now = dt.datetime.now(dt.UTC)
    reported = read_cursor(context.cursor)
    try:
        with queue_database.connect_to_read() as queue:
            counts = {day.day: counts_of(day) for day in progress.read_progress(queue) if _is_worked(day)}
            if not counts and not reported:
                return dg.SkipReason("the fleet has no day to work on")
            in_flight = runs.days_in_flight(context.instance, now)
            days, reported = decisions.days_to_report(counts, reported, in_flight, now, DAYS_REPORTED)
            events = observations(queue, days) if days else []
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    return dg.SensorResult(asset_events=events, cursor=write_cursor(reported))


def _is_worked(day: progress.Progress) -> bool:
    """Whether it is handed out and not finished; a finished day is shown by its materialisation."""
    return day.is_fanned_out and not day.is_done


def read_cursor(cursor: str | None) -> dict[dt.date, decisions.Reported]:
    """Parse the cursor that `write_cursor` made."""
    return {
        dt.date.fromisoformat(day): decisions.Reported(
            tuple(counts), dt.datetime.fromisoformat(first), dt.datetime.fromisoformat(last)
        )
        for day, (counts, first, last) in json.loads(cursor or "{}").items()
    }


def write_cursor(reported: dict[dt.date, decisions.Reported]) -> str:
    """The cursor: what was reported of each day that is still worked, as JSON."""
    return json.dumps(
        {
            day.isoformat(): [each.counts, each.first.isoformat(), each.last.isoformat()]
            for day, each in reported.items()
        }
    )


ALERT_SECONDS = 29


@dg.sensor(
    minimum_interval_seconds=ALERT_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds out which alerts are open, and tells people by e-mail, Slack or a webhook, where the "
    "settings name them: when one is opened, daily while it stays open, and when it has ended. Without them "
    "alerts are on the Fleet page and in the metrics alone. On by default.",
)
def alert_people(
    context: dg.SensorEvaluationContext,
    queue_database: QueueDatabase,
    results_database: ResultsDatabase,
    settings: dg.ResourceParam[Settings],
) -> dg.SkipReason:
    """Decide from the current state alone; what was told before is in the outbox.

    Raises:
        BadSetting: If a channel's settings are not whole. Alerts are on record all the same, and the web
            server tells people that nobody is told: this look does not count as one.
    """
    from episodes_assets.outbox.configuration import channels_of  # with an HTTP client, for this sensor alone

    problem: BadSetting | None = None
    try:
        channels = channels_of(settings)
    except BadSetting as error:
        channels, problem = [], error
    checks = context.repository_def.asset_graph.asset_check_keys if context.repository_def else ()
    try:
        with queue_database.connect() as queue:
            observed = observe(context.instance, checks, queue, results_database, settings, _now())
            decided, delivered = tell(
                queue,
                assess(observed),
                channels,
                remind_after=dt.timedelta(hours=settings.alert_reminder_hours),
                evaluator=Evaluator.SENSOR if problem is None else None,
                budget=delivery.OF_A_TICK,
            )
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    if problem is not None:
        raise problem
    alerts = [each.alert.summary for each in decided if each.alert and each.state is State.OPEN]
    said = "; ".join(alerts) if alerts else "no alert is open"
    return dg.SkipReason("; ".join([said, f"{delivered.sent} messages sent", *delivered.problems]))


SENSORS = (fan_out, publish_finished_days, alert_of_stalls, freshness, report_progress, alert_people)

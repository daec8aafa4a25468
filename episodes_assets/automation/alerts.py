"""Sensors that raise alerts: checks that fail, with what to do, and pass again when it is mended."""

import datetime as dt

import dagster as dg

from episodes_assets.assets.checks.day_progresses import CHECK, describe, find_open_days, stalled_days
from episodes_assets.assets.checks.published_results import judge_freshness
from episodes_assets.assets.checks.verdict_events import check_metadata, severity
from episodes_assets.errors import EpisodesError
from episodes_assets.resources.databases import QueueDatabase, ResultsDatabase
from episodes_assets.settings import load_settings

STALL_SECONDS = 29
FRESHNESS_SECONDS = 60


@dg.sensor(
    minimum_interval_seconds=STALL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Raises an alert, as a failed check of job_outcomes, when a day with unfinished jobs makes "
    "no progress, and takes it back when it does. On by default.",
)
def alert_of_stalls(
    context: dg.SensorEvaluationContext, queue_database: QueueDatabase
) -> dg.SensorResult | dg.SkipReason:
    """Report once when the set of stalled days changes."""
    try:
        with queue_database.connect_to_read() as queue:
            found = find_open_days(queue)
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    stalled = stalled_days(found)
    names = ", ".join(str(day.day) for day in stalled)
    if names == (context.cursor or ""):
        return dg.SkipReason(f"still stalled: {names}" if names else "each open day makes progress")
    verdict = describe(found, stalled)
    (context.log.error if stalled else context.log.info)(verdict["description"])
    event = dg.AssetCheckEvaluation(asset_key=dg.AssetKey("job_outcomes"), check_name=CHECK, **verdict)
    return dg.SensorResult(asset_events=[event], cursor=names)


@dg.sensor(
    minimum_interval_seconds=FRESHNESS_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks whether yesterday is published by EPISODES_PUBLISHED_BY_HOUR and says so in the check "
    "`yesterday_is_published`. On by default.",
)
def freshness(
    context: dg.SensorEvaluationContext, results_database: ResultsDatabase
) -> dg.SensorResult | dg.SkipReason:
    """Evaluate the check anew whenever its verdict changes, and once an hour.

    Dagster's own freshness policies look at the latest materialisation of any partition, so that a
    backfill of an old day would count as yesterday's publication.
    """
    now = _now()
    try:
        with results_database.connect_to_read() as results:
            verdict = judge_freshness(results, now, load_settings().published_by_hour)
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    said = f"{now:%Y-%m-%d %H} {verdict.passed} {verdict.message}"
    if said == context.cursor:
        return dg.SkipReason(verdict.message)
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("published_results"),
        check_name=verdict.gate,
        passed=verdict.passed,
        severity=severity(verdict),
        description=verdict.message,
        metadata=check_metadata(verdict),
    )
    return dg.SensorResult(asset_events=[evaluation], cursor=said)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)

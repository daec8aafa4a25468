"""`episode_jobs`: the day's jobs, planned and written to the ledger; with its checks.

Also when a plan is replaced: because an operator has the day worked again (`rework`, `as_planned`), or
because something else has changed it (`repair`, which looks for damage first). A warning is raised while a
slow step still runs. What is planned is `planning/jobs.py`; the statements are `ledger/plans.py`, and of
repairs `results/repairs.py`; whether a plan's inputs are still the same is `results/recompute.py`.
"""

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Timer

import dagster as dg
import pandas as pd
from pydantic import Field

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.checks import ledger
from episodes_assets.checks.lake import refuse_large_quarantine
from episodes_assets.checks.verdicts import HISTORY_DAYS
from episodes_assets.days import ONE_DAY
from episodes_assets.defs import metadata, partitions, profiles, steps, tables
from episodes_assets.defs.resources import Lake, QueueDatabase, ResultsDatabase
from episodes_assets.errors import LakeMissing, PlanDamaged, PlanOvertaken
from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.versions import TableVersion
from episodes_assets.lake.viewings import Viewings, require_day
from episodes_assets.ledger import plans, verify
from episodes_assets.planning.episode_set import EpisodeSet
from episodes_assets.planning.jobs import PlannedJobs, plan_day
from episodes_assets.postgres.connect import Connection
from episodes_assets.results import publications, publish, recompute
from episodes_assets.results.provenance import Provenance, read_provenance
from episodes_assets.results.repairs import RepairDecision, record_repair
from episodes_assets.results.state import read_tracked, state_before
from episodes_assets.settings import Settings

CHECKS = [
    dg.AssetCheckSpec(
        ledger.EVERY_DUE_ROW_HAS_ONE_JOB,
        asset="episode_jobs",
        blocking=True,
        description="The jobs read back from the ledger are those that were planned, none twice.",
    ),
    dg.AssetCheckSpec(
        ledger.JOB_COUNT_IS_USUAL,
        asset="episode_jobs",
        description=f"Jobs are {ledger.LEAST_JOBS:g} to {ledger.MOST_JOBS:g} times the median of the "
        f"{HISTORY_DAYS} days before.",
    ),
    dg.AssetCheckSpec(
        ledger.PLANNING_IS_AS_FAST_AS_USUAL,
        asset="episode_jobs",
        description=f"Planning takes at most {ledger.FAR_SLOWER:g} times what it took for as many days and "
        f"rows before, or {ledger.NEVER_SLOW_SECONDS:g} s.",
    ),
]
_NUMBERS = {"days", "rows", "seconds"}
_ROWS_READ = 3 * HISTORY_DAYS  # with those of failed runs, which have no verdict


def read_history(instance: dg.DagsterInstance) -> list[ledger.Planning]:
    """Earlier steps that planned, the latest first, from the metadata of their checks."""
    key = dg.AssetCheckKey(dg.AssetKey("episode_jobs"), ledger.PLANNING_IS_AS_FAST_AS_USUAL)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=_ROWS_READ)
    verdicts = (record.evaluation for record in records)
    numbers = [
        {name: float(str(found.metadata[name].value)) for name in _NUMBERS}
        for found in verdicts
        if isinstance(found, dg.AssetCheckEvaluation) and found.metadata.keys() >= _NUMBERS
    ]
    return [ledger.Planning(int(each["days"]), int(each["rows"]), each["seconds"]) for each in numbers]


@contextmanager
def warned_when_slow(
    context: dg.AssetExecutionContext, days: int, rows: int, history: Sequence[ledger.Planning]
) -> Iterator[None]:
    """Log a warning as soon as the block has taken far longer than planning usually does.

    It is logged while the block still runs, so that a step which hangs is noticed as well.
    """
    limit, usual = ledger.slow_after(days, rows, history), ledger.usual_seconds(days, rows, history)
    if limit is None or usual is None:
        yield
        return
    began = time.monotonic()

    def warn() -> None:
        seconds = time.monotonic() - began
        context.log.warning(ledger.describe_slow(limit, seconds=seconds, usual=usual, is_running=True))

    timer = Timer(limit, warn)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


CODE_VERSION = "1"


class PlanOptions(steps.RepairOptions):
    """How to plan the day. The default keeps what was worked."""

    rework: bool = Field(
        default=False,
        description="Supersede the day's plan even if it is the same, so that all its jobs are worked again: "
        "for viewings that arrived late, which do not change a plan.",
    )
    as_planned: bool = Field(
        default=False,
        description="With `rework`: from the version of the lake that the day's plan names, not the newest.",
    )


@dg.asset(
    # Of the day itself: it holds what was tracked before the day as well, and `one_day_before` would have
    # backfills ask for a day too many.
    deps=["input_episodes", "input_viewings", "tracked_episodes"],
    partitions_def=partitions.daily,
    backfill_policy=partitions.whole_range,
    group_name="planning",
    kinds={"postgres", "pandas"},
    owners=steps.TEAM,
    code_version=CODE_VERSION,
    metadata=tables.JOBS.metadata,
    check_specs=CHECKS,
    config_schema=PlanOptions.config_schema(),
)
def episode_jobs(
    context: dg.AssetExecutionContext,
    queue_database: QueueDatabase,
    results_database: ResultsDatabase,
    lake: Lake,
    settings: dg.ResourceParam[Settings],
) -> steps.Events:
    """The day's due rows as jobs in the ledger, each with the window it is to analyse.

    A pure function of the day's drop and viewings in the lake and yesterday's tracked episodes. Planning
    a day again changes nothing unless the plan differs, or `rework` is configured; then the old one is
    superseded. The plan names the version of the lake that its jobs are computed from.

    To have a day's jobs worked again, launch `rework_days`.
    """
    clock = steps.Stopwatch()
    options = PlanOptions.read(context)
    history = read_history(context.instance)
    planned: list[plans.Plan] = []
    changes = 0
    registry = get_registry()
    by_algorithm = Counter({registry.name_of(algorithm_id): 0 for algorithm_id in sorted(registry.ids)})
    left_out: Counter[int] = Counter()
    with (
        profiles.profiled(context, queue_database, settings),
        steps.as_dagster_failure(settings),
        results_database.connect_to_read() as state,
        queue_database.connect() as queue,
    ):
        days = partitions.days_of(context)
        repair = options.decision(context)
        drops = lake.drops()
        taken = drops.require_all(days)
        viewings = lake.viewings()
        newest = viewings.newest()
        state_before(state, days[0])
        yesterday = state_before(state, days[-1])
        for drop in taken:
            refuse_large_quarantine(
                drop.day, drop.quarantined_rows, drop.drop_rows, settings.quarantine_limit
            )
        rows = sum(drop.accepted_rows for drop in taken)
        with warned_when_slow(context, len(days), rows, history):
            inputs_of_days = recompute.read_plan_inputs(state, days, taken)
            _require_every_day(queue, state, viewings, newest, inputs_of_days, options)
            tracked = read_tracked(results_database.dsn, yesterday)
            for day, drop, inputs in zip(days, taken, inputs_of_days, strict=True):
                found = read_provenance(queue, state, day)
                plan_from = partial(_plan_from, viewings, drops, drop, tracked.as_of(day - ONE_DAY))
                version, planned_jobs = _plan_day(plan_from, viewings, newest, found, inputs, options)
                find_damage = partial(_find_damage, queue_database, state, found, inputs.day, repair)
                _refuse_loss(day, planned_jobs, found, options)
                jobs, checksum, unknown = _choose_jobs(planned_jobs, found.plan, options, find_damage)
                left_out.update(unknown)
                for number, count in unknown.items():
                    context.log.warning(
                        f"{day}: {count:,} jobs are left out: this release knows no algorithm {number}"
                    )
                plan, changed = plans.record_plan(
                    queue,
                    day,
                    jobs,
                    checksum=checksum,
                    snapshot_id=drop.snapshot_id,
                    code_version=CODE_VERSION,
                    chunk_jobs=settings.chunk_jobs,
                    viewings=version.pinned if version is not None and day in version.files else None,
                    tracked_checksum=inputs.yesterday,
                    above=publications.newest_plan(state),
                    rework=options.rework,
                    from_lake=True,
                    recheck=partial(recompute.require_same_inputs, inputs, state, drops),
                    find_damage=find_damage,
                    before_new=partial(
                        _before_new,
                        partial(_require_viewings, state, day, version, viewings),
                        partial(_record_repair, results_database, day, repair),
                    ),
                )
                for algorithm_id, count in jobs["algorithm_id"].value_counts().items():
                    by_algorithm[registry.name_of(int(str(algorithm_id)))] += int(count)
                context.log.info(f"{day}: {plan.jobs:,} jobs{'' if changed else ' (unchanged)'}")
                changes += changed
                planned.append(plan)
        steps.report_repairs(context, state, repair)
        step = ledger.Planning(len(days), rows, clock.seconds)
        verdicts = [
            ledger.every_due_row_has_one_job(verify.read_ledger_days(queue, queue_database.dsn, planned)),
            ledger.job_count_is_usual(
                verify.read_job_counts(queue, days[0] - HISTORY_DAYS * ONE_DAY, days[-1]), days
            ),
            ledger.planning_is_as_fast_as_usual(step, history),
        ]
    yield from steps.conclude(
        {
            "jobs": sum(plan.jobs for plan in planned),
            "jobs by algorithm": metadata.counts_table(by_algorithm.items(), "algorithm", "jobs"),
            **_describe_left_out(left_out),
            "days changed": changes,
            **metadata.days_table(
                context,
                [{"day": str(plan.day), "jobs": plan.jobs, "plan": plan.checksum[:16]} for plan in planned],
                row_counts=[plan.jobs for plan in planned],
            ),
            "seconds": clock.seconds,
        },
        verdicts,
    )


def _refuse_loss(day: dt.date, planned: PlannedJobs, found: Provenance, options: PlanOptions) -> None:
    """Refuse to publish a day without what it was published with, unless that is asked for.

    Raises:
        PlanDamaged: If its plan is gone, and some of its jobs cannot be done any more.
    """
    is_asked_for = options.rework or options.repair
    published = found.published
    if not (planned.unknown and found.is_plan_lost and published) or is_asked_for:
        return
    if published.plan_checksum == planned.all_checksum:
        jobs, numbers = sum(planned.unknown.values()), ", ".join(map(str, sorted(planned.unknown)))
        raise PlanDamaged(
            f"the plan that {day} was published from is gone, and it had {jobs:,} jobs of algorithms that "
            f"this release does not know ({numbers})",
            "restore the database `queue`, or publish the day without them: "
            f"`episodes backfill {day} {day} --rework`",
        )


def _choose_jobs(
    planned: PlannedJobs,
    plan: plans.Plan | None,
    options: PlanOptions,
    find_damage: Callable[[plans.Plan | None], str],
) -> tuple[pd.DataFrame, str, Mapping[int, int]]:
    """A day's jobs as they are to be recorded, their checksum, and how many are left out, by algorithm.

    A plan of a release that knew an algorithm keeps its jobs and outcomes. A new one does not get them.
    """
    has_all = plan is not None and plan.checksum == planned.all_checksum
    if planned.unknown and has_all and not options.rework and not find_damage(plan):
        return planned.all, planned.all_checksum, {}
    return planned.known, planned.known_checksum, planned.unknown


def _describe_left_out(jobs_by_algorithm: Mapping[int, int]) -> dict[str, dg.MetadataValue]:
    if not jobs_by_algorithm:
        return {}
    counts = [(str(number), jobs) for number, jobs in sorted(jobs_by_algorithm.items())]
    shown = metadata.counts_table(counts, "algorithm", "jobs")
    return {"left out, of algorithms that this release does not know": shown}


_Planned = tuple[TableVersion | None, PlannedJobs]


def _plan_from(
    viewings: Viewings, drops: Drops, drop: Drop, before: EpisodeSet, version: TableVersion | None
) -> _Planned:
    """The jobs that a day's drop and the viewings of a version of the lake give, and their checksum.

    Args:
        viewings: The lake's.
        drops: The lake's.
        drop: The day's.
        before: What was tracked up to the day before.
        version: The version.
    """
    day = drop.day
    viewed = EpisodeSet.of(
        viewings.episodes_of(version.number, day)
        if version is not None and day in version.files
        else drops.read_viewed(drop)  # of a release before the lake
    )
    parts = drops.read_drop(drop, ["epid", "algorithm_id", "premier_date", "start_date"])
    jobs = plan_day(parts, viewed, before, day)
    return version, PlannedJobs.of(jobs, get_registry().ids)


def _plan_day(
    plan_from: Callable[[TableVersion | None], _Planned],
    viewings: Viewings,
    newest: TableVersion | None,
    found: Provenance,
    inputs: recompute.PlanInputs,
    options: PlanOptions,
) -> _Planned:
    """A day's jobs, from the version of the lake that they are to be computed from.

    Args:
        plan_from: Plans the day from a version.
        viewings: The lake's.
        newest: Their newest version.
        found: The day's plan, beside what was published of the day.
        inputs: What else it is planned from.
        options: The step's.

    Raises:
        PlanDamaged: If its plan names another version than when it was published, and this is no repair.
        LakeMissing: If the lake does not have the version that was published or planned.
    """
    if options.as_planned:
        return plan_from(recompute.require_as_planned(viewings, found, inputs))
    if options.rework:
        return plan_from(newest)
    if not options.repair:
        found.require_pinned()
    published = found.published
    if published and (pinned := found.pinned_as_published(inputs.snapshot_id)):
        by = f"the {'plan' if found.is_from_plan else 'publication'} of {inputs.day}"
        planned = plan_from(viewings.at(*pinned, by))
        _, jobs = planned
        if published.plan_checksum in jobs.checksums:
            return planned
        # Its yesterday has changed since, so it is planned like a day that was not published.
    named = None if found.is_repinned else recompute.version_as_planned(viewings, found, inputs)
    return plan_from(named or newest)


def _require_every_day(
    queue: Connection,
    state: Connection,
    viewings: Viewings,
    newest: TableVersion | None,
    inputs_of_days: Sequence[recompute.PlanInputs],
    options: PlanOptions,
) -> None:
    """Refuse to work any day of a range again if one cannot be, before the first is changed.

    Each is looked at again when its plan is recorded.
    """
    if options.as_planned:
        for inputs in inputs_of_days:
            recompute.require_as_planned(viewings, read_provenance(queue, state, inputs.day), inputs)
    elif options.rework:
        first, last = inputs_of_days[0].day, inputs_of_days[-1].day
        published = recompute.read_published_coverage(state, first, last)
        recompute.require_computable(published, newest, viewings)


def _find_damage(
    queue_database: QueueDatabase,
    state: Connection,
    looked_at: Provenance,
    day: dt.date,
    repair: RepairDecision | None,
    plan: plans.Plan | None,
) -> str:
    """What is damaged of a day's plan, in words; called under the day's lock.

    Args:
        queue_database: To read on another connection than the one that has the lock.
        state: To `results`.
        looked_at: The plan and the publication that the version of the lake was chosen by.
        day: The day.
        repair: The decision; None not to look.
        plan: The plan now.
    """
    if repair is None:
        return ""
    now = Provenance(plan, publications.find_last_publication(state, day))
    with queue_database.connect_to_read() as queue:
        damage = now.describe_damage(queue, queue_database.dsn, publish.CODE_VERSION)
    was = looked_at.plan
    if damage and (plan and plan.plan_uid) != (was and was.plan_uid):
        raise PlanOvertaken(
            f"the plan of {day} was replaced by another run while it was looked at, and is damaged by now",
            "run the repair again",
        )
    return damage


def _before_new(require_viewings: Callable[[], None], record: Callable[[str], None], damage: str) -> None:
    require_viewings()
    record(damage)


def _record_repair(
    results_database: ResultsDatabase, day: dt.date, repair: RepairDecision | None, damage: str
) -> None:
    """Record a repair, before it is made, as it is made in another database's transaction."""
    if repair and damage:
        with results_database.connect() as results:
            record_repair(results, day, damage, repair)


def _require_viewings(
    state: Connection, day: dt.date, version: TableVersion | None, viewings: Viewings
) -> None:
    """Refuse a new plan whose jobs could not be computed, or would give less than is published."""
    recompute.require_computable(recompute.read_published_coverage(state, day, day), version, viewings)
    if version is None:
        raise LakeMissing(f"{viewings.shown} is empty", f"materialise input_viewings of {day}")
    require_day(version, day, viewings.shown)

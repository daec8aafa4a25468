"""`input_episodes` and `input_viewings`: the day's input, read once and kept for ever; with their checks.

Taking it is `lake/taking.py`, validating a drop `planning/drop.py`; the rules of the checks are
`checks/lake.py`.
"""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from episodes_assets.checks import lake
from episodes_assets.checks.verdicts import HISTORY_DAYS, Verdict
from episodes_assets.days import ONE_DAY, days_before, parse_date
from episodes_assets.defs import metadata, partitions, profiles, tables
from episodes_assets.defs.assets import external
from episodes_assets.defs.resources import InputDatabase, Lake, QueueDatabase, ResultsDatabase
from episodes_assets.defs.steps import TEAM, Events, RunOptions, Stopwatch, as_dagster_failure, conclude_each
from episodes_assets.errors import DropGone, DropNotArrived, ReasonMissing
from episodes_assets.input.columns import look_at_columns
from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.taking import LateViewings, TakenDay, Taking
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres.connect import Connection
from episodes_assets.results import recompute, state
from episodes_assets.settings import Settings

EPISODE_CHECKS = [
    dg.AssetCheckSpec(
        lake.DROP_IS_COMPLETE,
        asset="input_episodes",
        blocking=True,
        description="The rows read from the drop are those in the lake's files.",
    ),
    dg.AssetCheckSpec(
        lake.QUARANTINE_IS_SMALL,
        asset="input_episodes",
        blocking=True,
        description=f"At most {lake.QUARANTINE_WARNING_SHARE:.0%} of the drop is refused; above "
        "EPISODES_QUARANTINE_LIMIT nothing is built on it.",
    ),
    dg.AssetCheckSpec(
        lake.DROP_SIZE_IS_USUAL,
        asset="input_episodes",
        description=f"Accepted rows are {lake.LEAST_DROP:g} to {lake.MOST_DROP:g} times the median of the "
        f"{HISTORY_DAYS} days before.",
    ),
]


def check_episodes(drops: Drops, taken: Sequence[Drop], quarantine_limit: float) -> list[Verdict]:
    """The verdicts on the drops of a step's days, which are in order."""
    rows = [
        lake.DropRows(
            day=drop.day,
            read=drop.drop_rows,
            accepted=drop.accepted_rows,
            quarantined=drop.quarantined_rows,
            accepted_stored=accepted_stored,
            quarantined_stored=quarantined_stored,
        )
        for drop, (accepted_stored, quarantined_stored) in zip(taken, drops.count_rows(taken), strict=True)
    ]
    days = [each.day for each in rows]
    before = drops.find_all(days_before(days[0], HISTORY_DAYS))
    accepted = {day: drop.accepted_rows for day, drop in before.items()}
    accepted |= {each.day: each.accepted for each in rows}
    return [
        lake.drop_is_complete(rows),
        lake.quarantine_is_small(rows, quarantine_limit),
        lake.drop_size_is_usual(accepted, days),
    ]


VIEWING_CHECKS = [
    dg.AssetCheckSpec(
        lake.VIEWINGS_ARE_COMPLETE,
        asset="input_viewings",
        blocking=True,
        description="The day's file in the lake holds the viewings that were taken.",
    ),
    dg.AssetCheckSpec(
        lake.VIEWINGS_ARE_KEPT,
        asset="input_viewings",
        description="The input has all viewings that were taken: those that are gone from there stay in the "
        "lake.",
    ),
    dg.AssetCheckSpec(
        lake.VIEWINGS_COUNT_IS_USUAL,
        asset="input_viewings",
        description=f"Viewings are {lake.LEAST_VIEWINGS:g} to {lake.MOST_VIEWINGS:g} times the median of "
        f"the {HISTORY_DAYS} days before.",
    ),
    dg.AssetCheckSpec(
        lake.LATE_VIEWINGS_ARE_PUBLISHED,
        asset="input_viewings",
        description="The days published last were computed from the viewings that the lake has now. Looked "
        "at again when days have been published.",
    ),
]


def check_late_viewings(results: Connection, viewings: Viewings, last: dt.date) -> Verdict:
    """The verdict of `late_viewings_are_published` once the days up to one were taken, or published.

    Args:
        results: To `results`.
        viewings: The lake's table.
        last: The day.
    """
    outdated = recompute.read_outdated(results, viewings, last + recompute.DAYS_COMPARED * ONE_DAY)
    return lake.late_viewings_are_published(outdated)


def check_viewings(
    results: Connection, viewings: Viewings, taken: Sequence[TakenDay], late: Sequence[LateViewings]
) -> list[Verdict]:
    """The verdicts on the viewings of a step's days, which are in order.

    Args:
        results: To `results`.
        viewings: The lake's table.
        taken: The days.
        late: Days before them whose viewings in the input were compared again.
    """
    rows = [lake.ViewingsRows(each.day, each.viewings.rows, viewings.count(each.viewings)) for each in taken]
    days = [each.day for each in taken]
    newest = viewings.newest()
    known = newest.between(days[0] - HISTORY_DAYS * ONE_DAY, days[-1]) if newest else []
    return [
        lake.viewings_are_complete(rows),
        lake.viewings_are_kept(
            {each.day: each.difference for each in late if not each.was_taken}
            | {each.day: each.difference for each in taken if not each.is_as_read},
            days[-1],
        ),
        lake.viewings_count_is_usual({file.day: file.rows for file in known}, days),
        check_late_viewings(results, viewings, days[-1]),
    ]


def describe_viewings(
    context: dg.AssetExecutionContext,
    viewings: Viewings,
    taken: Sequence[TakenDay],
    late: Sequence[LateViewings],
    earlier: int,
) -> dict[str, Any]:
    """The metadata of `input_viewings` for a step's days.

    Args:
        context: Of the step.
        viewings: The lake's table.
        taken: The days, in order.
        late: Days before them whose viewings in the input were compared again.
        earlier: Viewings that were taken of days before the history.
    """
    newest = viewings.newest()
    files = [each.viewings for each in taken]
    before = newest.between(taken[-1].day - HISTORY_DAYS * ONE_DAY, taken[-1].day) if newest else []
    return {
        "viewings": sum(file.rows for file in files),
        "bytes": sum(file.size for file in files),
        "viewings that arrived late": sum(each.difference.new for each in late if each.was_taken),
        "viewings accepted as lost": sum(each.difference.gone for each in taken if each.is_as_read),
        "viewings of earlier days": earlier,
        "viewings by day": metadata.image(
            metadata.counts_by_day({file.day: file.rows for file in before}), "viewings by day"
        ),
        **metadata.days_table(
            context,
            [
                {
                    "day": str(each.day),
                    "viewings": each.viewings.rows,
                    "viewed episodes": each.drop.viewed_episodes,
                    "bytes": each.viewings.size,
                    "file": each.viewings.path,
                }
                for each in taken
            ],
            row_counts=[file.rows for file in files],
            asset="input_viewings",
        ),
        "lake version": newest.number if newest else 0,
        **metadata.place(viewings.shown),
    }


CODE_VERSION = "1"
REFUSED_SHOWN = 10


class InputOptions(RunOptions):
    """How to take the day's input. Every default is the safe choice."""

    refresh: bool = Field(
        default=False,
        description="Take the day again although it is kept. Its jobs may then differ, and later days refuse "
        "to build on it until they are materialised again.",
    )
    accept_lost_viewings: bool = Field(
        default=False,
        description="Take the viewings that the input has now although some that are kept are gone from it: "
        "with `refresh` together with the drop, else alone, also of a day whose drop is gone; with "
        "`viewings_since` of the days from that one on too. Without this a day that is refreshed is refused "
        "when the input has new ones besides, and keeps its viewings when it has none. It needs a `reason`. "
        "What was taken before stays readable; the numbers are on record.",
    )
    reason: str = Field(
        default="",
        description="Why a day that is kept is taken again, which must be said; kept with it and shown by "
        "`episodes history`.",
    )
    viewings_since: str = Field(
        default="",
        description="Take the viewings of earlier days from this one on, YYYY-MM-DD: those that were not "
        "taken, and with `accept_lost_viewings` the others again. By default all that the input still holds "
        "are taken where a history begins.",
    )
    arrival_retries: int = Field(
        default=0, ge=0, description="How often to look again when the drop has not arrived."
    )
    arrival_retry_seconds: float = Field(default=600, gt=0, description="Seconds between two looks.")


@dg.multi_asset(
    name="take_input",
    specs=[
        dg.AssetSpec(
            "input_episodes",
            deps=[external.EPISODES],
            description="The day's catalogue drop in the lake, kept for ever. Rows that break a rule are "
            "quarantined with the reason: look at *quarantine reasons* when `quarantine_is_small` warns. A "
            "drop that was wrong is corrected at its source; then launch `correct_day`.",
            group_name="input",
            kinds={"postgres", "deltalake", "pandas"},
            owners=TEAM,
            code_version=CODE_VERSION,
            metadata={**tables.EPISODES.metadata, "quarantine": tables.QUARANTINE.schema},
        ),
        dg.AssetSpec(
            "input_viewings",
            deps=[external.VIEWINGS],
            description="The day's viewings in the lake: each read once from the input, and kept for ever. "
            "Those that arrive late are taken with the days after; when `late_viewings_are_published` warns, "
            "launch `rework_days` for the days it names.",
            group_name="input",
            kinds={"postgres", "deltalake", "duckdb"},
            owners=TEAM,
            code_version=CODE_VERSION,
            metadata=tables.VIEWINGS.metadata,
        ),
    ],
    partitions_def=partitions.daily,
    backfill_policy=partitions.whole_range,
    check_specs=[*EPISODE_CHECKS, *VIEWING_CHECKS],
    config_schema=InputOptions.config_schema(),
)
def take_input(
    context: dg.AssetExecutionContext,
    input_database: InputDatabase,
    queue_database: QueueDatabase,
    results_database: ResultsDatabase,
    lake: Lake,
    settings: dg.ResourceParam[Settings],
) -> Events:
    """Take what the input has of the day, as of one moment: the drop and the viewings.

    A day that is kept is not read again, unless the run is configured to refresh it. Of the days just before,
    viewings that have arrived since are taken as well; where a history begins, those that the input still
    holds of all days before it.
    """
    clock = Stopwatch()
    options = InputOptions.read(context)
    with (
        profiles.profiled(context, queue_database, settings),
        as_dagster_failure(settings, options.arrival_retries),
    ):
        days = partitions.days_of(context)
        drops, viewings = lake.drops(), lake.viewings()
        _require_reason(options, days, drops)
        taking = Taking(
            lambda: _checked_columns(input_database.checked_dsn(context.log.warning)),
            drops,
            viewings,
            settings.environment,
        )
        if options.refresh:
            # Everything that was built on the day has to be computed again afterwards.
            with results_database.connect_to_read() as results:
                published = recompute.read_published_coverage(results, days[0], dt.date.max)
            recompute.require_computable(published, viewings.newest(), viewings)
        earlier = _take_earlier(context, taking, days[0], options)
        taken: list[TakenDay] = []
        late: list[LateViewings] = []

        def take_late(first: dt.date) -> None:
            # Before the first day is taken, so that no day is kept whose late viewings were not looked for.
            late.extend(taking.take_late(days_before(first, settings.late_days)))
            for each in late:
                context.log.info(_late_line(each))

        try:
            for each in taking.take(
                days,
                refresh=options.refresh,
                reason=options.reason,
                accept_lost=options.accept_lost_viewings,
                before_reading=take_late,
            ):
                taken.append(each)
                context.log.info(_line(each))
        except DropNotArrived as missing:
            gone = _known_to_be_gone(days[len(taken)], drops, results_database)
            if gone or context.retry_number >= options.arrival_retries:
                raise gone or missing from missing
            context.log.warning(f"{missing}; looking again later")
            raise dg.RetryRequested(
                max_retries=options.arrival_retries, seconds_to_wait=options.arrival_retry_seconds
            ) from missing
        episode_verdicts = check_episodes(drops, [each.drop for each in taken], settings.quarantine_limit)
        with results_database.connect_to_read() as results:
            viewing_verdicts = check_viewings(results, viewings, taken, late)
    seconds = clock.seconds
    yield from conclude_each(
        {
            "input_episodes": (_of_episodes(context, taken, drops) | {"seconds": seconds}, episode_verdicts),
            "input_viewings": (
                describe_viewings(context, viewings, taken, late, earlier) | {"seconds": seconds},
                viewing_verdicts,
            ),
        }
    )


def _take_earlier(
    context: dg.AssetExecutionContext, taking: Taking, first: dt.date, options: InputOptions
) -> int:
    """Where a history begins, or it is asked for, take the viewings of the days before; returns how many."""
    since = parse_date(options.viewings_since) if options.viewings_since else None
    viewings = 0
    for file in taking.take_earlier(
        first, since, reason=options.reason, accept_lost=options.accept_lost_viewings
    ):
        context.log.info(f"{file.day}, before {first}: {file.rows:,} viewings taken")
        viewings += file.rows
    return viewings


def _line(taken: TakenDay) -> str:
    drop = taken.drop
    kept = " (kept before)" if taken.is_reused else ""
    gone, new = taken.difference
    changed = f"; {gone:,} are gone from the input and {new:,} are new there" if gone or new else ""
    if changed and not taken.is_as_read:
        changed += ", so those of before are kept"
    return (
        f"{taken.day}: {drop.drop_rows:,} rows, {drop.quarantined_rows:,} quarantined, "
        f"{taken.viewings.rows:,} viewings of {drop.viewed_episodes:,} episodes{kept}{changed}"
    )


def _late_line(late: LateViewings) -> str:
    gone, new = late.difference
    return (
        f"{late.day}: {late.in_lake:,} viewings were taken; {gone:,} of them are gone from the input, and"
        f" {new:,} are new there: {'taken again' if late.was_taken else 'those of before are kept'}"
    )


def _of_episodes(
    context: dg.AssetExecutionContext, taken: Sequence[TakenDay], drops: Drops
) -> dict[str, Any]:
    found = [each.drop for each in taken]
    refused: Counter[str] = Counter()
    for each in found:
        refused.update(each.reasons)
    most_first = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
    return {
        "catalogue rows": sum(each.drop_rows for each in found),
        "quarantined": sum(each.quarantined_rows for each in found),
        "quarantine reasons": metadata.counts_table(most_first, "reason", "rows"),
        "quarantined rows": metadata.links(
            (f"{epid}: {reasons}", f"/explain/{found[-1].day}/{epid}")
            for epid, reasons in drops.first_refused(found[-1], REFUSED_SHOWN)
        ),
        **metadata.days_table(
            context,
            [
                {
                    "day": str(each.day),
                    "catalogue rows": each.drop_rows,
                    "quarantined": each.quarantined_rows,
                    "viewed episodes": each.viewed_episodes,
                    "snapshot": each.snapshot_id,
                    "reason": each.reason,
                }
                for each in found
            ],
            row_counts=[each.accepted_rows for each in found],
            asset="input_episodes",
        ),
        "days kept before": sum(each.is_reused for each in taken),
        **metadata.place(drops.episodes.shown),
    }


def _require_reason(options: InputOptions, days: list[dt.date], drops: Drops) -> None:
    if options.reason.strip():
        return
    if options.accept_lost_viewings or (options.refresh and not {*days}.isdisjoint(drops.days())):
        raise ReasonMissing(
            "a day that is kept is taken again only for a reason",
            "launch it again by *Open launchpad* beside *Materialize*, pick the day, "
            "and say why under `reason`",
        )


def _checked_columns(dsn: str) -> str:
    """The DSN of an input, after checking that its columns are of types that can be read."""
    look_at_columns(dsn)
    return dsn


def _known_to_be_gone(day: dt.date, drops: Drops, results: ResultsDatabase) -> DropGone | None:
    """The error for a drop that is missing and was taken before, so that it is no use to wait for it.

    None if it was never taken: it may yet arrive, whatever drops of other days are there.
    """
    gone = f"the drop of {day} is gone from the input database"
    if drops.find(day) is not None:
        return DropGone(
            f"{gone} and cannot be refreshed", "materialise it without `refresh` to use what is kept of it"
        )
    with results.connect_to_read() as connection:
        tracked = state.read_day(connection, day)
    taken = {each.snapshot_id for each in drops.versions(day)}
    if tracked is not None and tracked.snapshot_id is not None:
        taken.add(tracked.snapshot_id)
    if not taken:
        return None
    return DropGone(
        f"{gone}, and what was taken of it ({' or '.join(sorted(taken))}) from the lake",
        f"restore the lake at {drops.shown} from a backup",
    )

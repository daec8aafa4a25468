"""The day's input: read once, validated, kept for ever."""

import datetime as dt

import dagster as dg
from pydantic import Field

from episodes_assets.assets.checks.input_episodes import CHECKS, judge
from episodes_assets.assets.checks.verdict_events import Events, conclude
from episodes_assets.assets.partitions import daily, days_of, whole_range
from episodes_assets.assets.reporting import TEAM, Stopwatch, days_table, plain_failures, table
from episodes_assets.assets.run_options import RunOptions
from episodes_assets.errors import DropGone, DropNotArrived, ReasonMissing
from episodes_assets.resources.databases import InputDatabase, ResultsDatabase
from episodes_assets.resources.snapshots import Snapshots
from episodes_assets.settings import load_settings
from episodes_assets.stores import tracked_state
from episodes_assets.stores.input_columns import look_at_columns
from episodes_assets.stores.input_tables import DropReading, drop_not_arrived, read_viewed
from episodes_assets.stores.read_ahead import read_ahead
from episodes_assets.stores.snapshot_manifest import Snapshot
from episodes_assets.stores.snapshots import SnapshotStore
from episodes_assets.validation.drop import prepare_rules, validate_drop

CODE_VERSION = "1"


class DropOptions(RunOptions):
    """How to get at the day's drop. Every default is the safe choice."""

    refresh: bool = Field(
        default=False,
        description="Take a new snapshot although the day has one. Its jobs may then differ, and "
        "later days refuse to build on it until they are materialised again.",
    )
    reason: str = Field(
        default="",
        description="Why a new snapshot is taken of a day that has one, which must be said; kept with it and "
        "shown by `episodes history`.",
    )
    arrival_retries: int = Field(
        default=0, ge=0, description="How often to look again when the drop has not arrived."
    )
    arrival_retry_seconds: float = Field(default=600, gt=0, description="Seconds between two looks.")


@dg.asset(
    partitions_def=daily,
    backfill_policy=whole_range,
    group_name="input",
    kinds={"postgres", "parquet", "pandas"},
    owners=TEAM,
    code_version=CODE_VERSION,
    check_specs=CHECKS,
    config_schema=DropOptions.config_schema(),
)
def input_episodes(
    context: dg.AssetExecutionContext,
    input_database: InputDatabase,
    results_database: ResultsDatabase,
    snapshots: Snapshots,
) -> Events:
    """The day's catalogue drop and the episodes viewed that day, as an immutable snapshot.

    Rows that break a rule are quarantined with the reason. A day that has a snapshot keeps it.
    """
    clock = Stopwatch()
    store = snapshots.open()
    taken: list[Snapshot] = []
    reused = 0
    dsn = ""  # looked up when a day has no snapshot: those that have need no input database
    options = DropOptions.read(context)
    with plain_failures(options.arrival_retries):
        _require_reason(options, days_of(context), store)
        for day in days_of(context):
            found = None if options.refresh else store.find(day)
            reused += found is not None
            if found is None:
                dsn = dsn or _readable(input_database.checked_dsn(context.log.warning))
            try:
                snapshot = found or _take_snapshot(day, dsn, store, options.reason)
            except DropNotArrived as missing:
                error = _known_to_be_gone(day, store, results_database) or missing
                if isinstance(error, DropGone):
                    raise error from missing
                if context.retry_number < options.arrival_retries:
                    context.log.warning(f"{error}; looking again later")
                    raise dg.RetryRequested(
                        max_retries=options.arrival_retries,
                        seconds_to_wait=options.arrival_retry_seconds,
                    ) from missing
                raise
            context.log.info(
                f"{day}: {snapshot.drop_rows:,} rows, {snapshot.quarantined_rows:,} quarantined, "
                f"{snapshot.viewed_episodes:,} episodes viewed"
                f"{' (snapshot reused)' if found else ''}"
            )
            taken.append(snapshot)
        verdicts = judge(store, taken, load_settings().quarantine_limit)
    rows = sum(snapshot.drop_rows for snapshot in taken)
    refused = sum(snapshot.quarantined_rows for snapshot in taken)
    yield from conclude(
        {
            "catalogue rows": rows,
            "quarantined": refused,
            "viewed episodes": sum(snapshot.viewed_episodes for snapshot in taken),
            "quarantine reasons": _reasons_table(taken),
            **days_table(
                context,
                [
                    {
                        "day": snapshot.day,
                        "catalogue rows": snapshot.drop_rows,
                        "quarantined": snapshot.quarantined_rows,
                        "viewed episodes": snapshot.viewed_episodes,
                        "snapshot": snapshot.snapshot_id,
                        "reason": snapshot.reason,
                    }
                    for snapshot in taken
                ],
                row_counts=[snapshot.accepted_rows for snapshot in taken],
            ),
            "snapshots reused": reused,
            "snapshots": dg.MetadataValue.path(store.shown),
            "seconds": clock.seconds,
        },
        verdicts,
    )


def _require_reason(options: DropOptions, days: list[dt.date], store: SnapshotStore) -> None:
    if options.refresh and not options.reason.strip() and any(store.find(day) is not None for day in days):
        raise ReasonMissing(
            "a day that has a snapshot gets another one only for a reason",
            "launch it again by *Open launchpad* beside *Materialize*, pick the day, "
            "and say why under `reason`",
        )


def _readable(dsn: str) -> str:
    """An input, once it is known how its columns are read."""
    look_at_columns(dsn)
    return dsn


def _take_snapshot(day: dt.date, dsn: str, store: SnapshotStore, reason: str) -> Snapshot:
    drop = DropReading(dsn, day)
    with (
        store.new(day, environment=load_settings().environment, reason=reason) as snapshot,
        read_ahead(drop) as parts,
    ):
        # While the server sorts the drop:
        viewed = read_viewed(dsn, day)
        prepare_rules()
        for part in parts:
            snapshot.add(validate_drop(part))
        if not drop.rows:
            raise drop_not_arrived(dsn, day)
        return snapshot.finish(viewed, drop.rows)


def _known_to_be_gone(day: dt.date, store: SnapshotStore, results: ResultsDatabase) -> DropGone | None:
    """A refusal to wait for a drop that was there before; what is there of other days says nothing."""
    gone = f"the drop of {day} is gone from the input database"
    if store.find(day) is not None:
        return DropGone(
            f"{gone} and cannot be refreshed", "materialise it without `refresh` to use its snapshot"
        )
    with results.connect_to_read() as connection:
        tracked = tracked_state.read_day(connection, day)
    taken = {each.snapshot_id for each in store.versions(day)}
    if tracked is not None and tracked.snapshot_id is not None:
        taken.add(tracked.snapshot_id)
    if not taken:
        return None
    return DropGone(
        f"{gone}, and its snapshot {' or '.join(sorted(taken))} from the snapshots",
        f"restore the folder day={day} with its manifest.json below {store.shown}",
    )


def _reasons_table(taken: list[Snapshot]) -> dg.TableMetadataValue:
    counts: dict[str, int] = {}
    for snapshot in taken:
        for reason, count in snapshot.reasons.items():
            counts[reason] = counts.get(reason, 0) + count
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return table([{"reason": reason, "rows": count} for reason, count in ordered])

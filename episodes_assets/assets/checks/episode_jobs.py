"""The checks of `episode_jobs`, and the warning while a slow step still runs."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer

import dagster as dg

from episodes_assets.checks import ledger
from episodes_assets.checks.verdicts import HISTORY_DAYS

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
    """The steps that planned before, the latest first: each left its numbers with its verdict."""
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

    It comes while the block runs, also when that waits for something that never ends.
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

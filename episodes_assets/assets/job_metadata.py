"""What `job_outcomes` shows of finished jobs: a plot, durations, the slowest and those that are left out."""

from collections.abc import Sequence
from typing import Any

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.assets.plot import jobs_over_time
from episodes_assets.assets.progress_events import FAILED_SHOWN, failed_table
from episodes_assets.assets.reporting import image, table
from episodes_assets.ledger import held
from episodes_assets.ledger.progress import (
    AlgorithmDuration,
    Progress,
    SlowBatch,
    durations_by_algorithm,
    finished_over_time,
    slowest_batches,
)
from episodes_assets.postgres.connect import Connection

SLOWEST_SHOWN = 10


def describe_work(connection: Connection, progress: Sequence[Progress]) -> dict[str, Any]:
    """Metadata of bounded size, however many days and jobs there were.

    Plans that were worked before durations were kept have no plot, and none in the tables.

    Args:
        connection: To `queue`.
        progress: The days, finished.
    """
    plans = [day.plan_id for day in progress]
    metadata: dict[str, Any] = {}
    if points := finished_over_time(connection, plans):
        metadata["jobs over time"] = image(
            jobs_over_time(points, sum(day.jobs for day in progress)), "jobs finished over time"
        )
    if by_algorithm := durations_by_algorithm(connection, plans):
        metadata["durations by algorithm"] = table([_duration(each) for each in by_algorithm])
        metadata["slowest jobs"] = table(
            [_slow(each) for each in slowest_batches(connection, plans, SLOWEST_SHOWN)]
        )
    if days := [day.day for day in progress if day.failed]:
        metadata["failed jobs"] = failed_table(held.read_held(connection, days, FAILED_SHOWN))
    return metadata


def _duration(each: AlgorithmDuration) -> dict[str, Any]:
    return {
        "algorithm": get_registry().name_of(each.algorithm_id),
        "jobs": each.jobs,
        "batches": each.batches,
        "seconds": round(each.seconds, 3),
        "jobs per second": round(each.jobs / each.seconds, 1) if each.seconds else 0.0,
        "median of a batch": round(each.median, 4),
        "95th percentile": round(each.p95, 4),
    }


def _slow(each: SlowBatch) -> dict[str, Any]:
    is_alone = each.epid is not None and each.algorithm_id is not None
    return {
        "day": str(each.day),
        "what": f"epid {each.epid}, {get_registry().name_of(each.algorithm_id or 0)}"
        if is_alone
        else f"{each.jobs:,} jobs",
        "chunk": each.chunk,
        "seconds": round(each.seconds, 3),
        "seconds for each": round(each.seconds / each.jobs, 5),
        "worker": each.worker,
    }

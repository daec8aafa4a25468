"""Whether the days that are with the fleet make progress: a check to run by hand, and what an alert says."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import dagster as dg

from episodes_assets.assets.reporting import plain_failures, table
from episodes_assets.assets.run_options import NO_OPTIONS
from episodes_assets.checks.ledger import OpenDay
from episodes_assets.ledger.progress import open_days
from episodes_assets.resources.databases import QueueDatabase
from episodes_assets.settings import load_settings

CHECK = "each_open_day_progresses"


@dg.asset_check(
    asset="job_outcomes",
    name=CHECK,
    description="Of each day with unfinished jobs, some job was finished within EPISODES_STALL_MINUTES.",
    config_schema=NO_OPTIONS,
)
def each_open_day_progresses(queue_database: QueueDatabase) -> dg.AssetCheckResult:
    """Look at all days with unfinished jobs."""
    with plain_failures(), queue_database.connect_to_read() as queue:
        found = find_open_days(queue)
    return dg.AssetCheckResult(**describe(found, stalled_days(found)))


def find_open_days(queue: Any) -> list[OpenDay]:  # noqa: ANN401
    """The days with unfinished jobs, as the settings judge silence."""
    return open_days(queue, dt.timedelta(seconds=load_settings().heartbeat_seconds))


def stalled_days(found: Sequence[OpenDay]) -> list[OpenDay]:
    """Those of which nothing was finished for EPISODES_STALL_MINUTES."""
    limit = dt.timedelta(minutes=load_settings().stall_minutes)
    now = dt.datetime.now(dt.UTC)
    return [day for day in found if day.is_stalled(now, limit)]


def describe(found: Sequence[OpenDay], stalled: Sequence[OpenDay]) -> dict[str, Any]:
    """The verdict: `passed`, `description` and `metadata` of a check's result."""
    return {
        "passed": not stalled,
        "description": "; ".join(day.describe() for day in stalled)
        or "each day with unfinished jobs makes progress",
        "metadata": {
            "days with unfinished jobs": len(found),
            "stalled days": table(
                [
                    {
                        "day": str(day.day),
                        "waiting": day.waiting,
                        "running": day.running,
                        "last finished": day.moved_at.isoformat(timespec="seconds"),
                        "oldest claim": day.claimed_by or "-",
                        "live messages": day.messages,
                        "lost messages": day.lost_messages,
                        "silent workers' messages": day.silent_messages,
                    }
                    for day in stalled
                ]
            ),
        },
    }

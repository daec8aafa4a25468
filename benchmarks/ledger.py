"""Plans for measurements that begin where planning ends."""

import datetime as dt

import numpy as np
import pandas as pd

from benchmarks import inputs
from episodes_assets.ledger.plans import Plan, record_plan
from episodes_assets.planning.jobs import plan_checksum
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.plans import NO_DIGEST
from episodes_assets_tests.support.system import System

CHUNK_JOBS = 2_000


def jobs_frame(
    jobs: int, *, day: dt.date = inputs.DAY, window_days: int = 3, catching_up: int = 0
) -> pd.DataFrame:
    """Two jobs for each of the viewed episodes, as planning the benchmark's day yields them.

    Args:
        jobs: How many.
        day: Their day.
        window_days: How long they look back.
        catching_up: So many of those for `reach` look back for 400 days instead.
    """
    number = np.arange(jobs)
    episode = number // 2
    start = np.datetime64(day, "s") - np.timedelta64(window_days - 1, "D")
    is_long = (number % 2 == 0) & (episode < catching_up)
    return pd.DataFrame(
        {
            "epid": inputs.epids(0, jobs)[episode],
            "algorithm_id": np.where(number % 2 == 0, 0, 1 + episode % 2).astype(np.int16),
            "window_start": np.where(is_long, start - np.timedelta64(400, "D"), start),
        }
    )


def record_jobs(
    system: System,
    jobs: int,
    *,
    day: dt.date = inputs.DAY,
    chunk_jobs: int = CHUNK_JOBS,
    window_days: int = 3,
    catching_up: int = 0,
    is_analysed: bool = True,
) -> Plan:
    """Make them the day's plan, on the newest version of the lake.

    What is not analysed is new to the planner's statistics.
    """
    newest = system.viewings.newest()
    frame = jobs_frame(jobs, day=day, window_days=window_days, catching_up=catching_up)
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        plan, _ = record_plan(
            queue,
            day,
            frame,
            checksum=plan_checksum(frame),
            snapshot_id="benchmark",
            code_version="benchmark",
            chunk_jobs=chunk_jobs,
            viewings=newest.pinned if newest else NO_DIGEST,
        )
    if is_analysed:
        system.query("queue", "VACUUM ANALYZE ledger.jobs, ledger.chunks, ledger.outcomes")
    return plan

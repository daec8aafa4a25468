"""The fleet on real jobs: by size of chunk, workers and window, and against Procrastinate."""

import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from benchmarks import inputs
from benchmarks.conftest import Measure, forget_days
from benchmarks.fleet import metrics_by_job, running_workers, work_off
from benchmarks.ledger import CHUNK_JOBS, jobs_frame, record_jobs
from benchmarks.sizes import FULL, Sizes
from episodes_assets.days import ONE_DAY
from episodes_assets.input.loading import replace_input
from episodes_assets.postgres.arrow import stream_arrow
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System

GROUP = "the fleet"
# What a worker reads, in whatever order it comes.
_BARE_READ = """
    SELECT viewings.* FROM unnest({epids}::bigint[], {since}::date[]) AS wanted (epid, since)
    JOIN viewings ON viewings.epid = wanted.epid
        AND viewed_at >= wanted.since::timestamp AT TIME ZONE 'UTC'
    WHERE viewed_at < {until}::timestamp AT TIME ZONE 'UTC'
"""


def measure_fleet(
    measure: Measure, system: System, name: str, jobs: int, *, workers: int = 2, **plan: Any
) -> None:
    def before() -> None:
        forget_days(system)
        record_jobs(system, jobs, **plan)

    with running_workers(system, workers):
        measure(
            GROUP,
            name,
            lambda: {"seconds": work_off(system)},
            before=before,
            jobs=jobs,
            workers=workers,
            **{"chunk_jobs": CHUNK_JOBS, "window_days": 3, **plan},
        )


@pytest.mark.parametrize("chunk_jobs", FULL.chunk_jobs)
def test_chunk_sizes(measure: Measure, full_day: System, sizes: Sizes, chunk_jobs: int) -> None:
    if chunk_jobs not in sizes.chunk_jobs:
        pytest.skip("not at this size")
    measure_fleet(measure, full_day, f"chunks of {chunk_jobs:,}", sizes.jobs, chunk_jobs=chunk_jobs)


def test_a_message_for_each_job(measure: Measure, full_day: System, sizes: Sizes) -> None:
    name = f"a message for each of {sizes.slow_jobs:,} jobs"
    measure_fleet(measure, full_day, name, sizes.slow_jobs, chunk_jobs=1)


@pytest.mark.parametrize("workers", FULL.workers)
def test_workers(measure: Measure, full_day: System, sizes: Sizes, workers: int) -> None:
    if workers not in sizes.workers:
        pytest.skip("not at this size")
    measure_fleet(measure, full_day, f"workers: {workers}", sizes.jobs, workers=workers)


@pytest.mark.parametrize("window_days", FULL.window_days)
def test_windows(measure: Measure, full_day: System, sizes: Sizes, window_days: int) -> None:
    if window_days not in sizes.window_days:
        pytest.skip("not at this size")
    measure_fleet(measure, full_day, f"windows of {window_days} days", sizes.jobs, window_days=window_days)


def test_procrastinate(measure: Measure, full_day: System, sizes: Sizes) -> None:
    admin = full_day.admin["queue"]
    environment = {
        **os.environ,
        "BENCHMARK_QUEUE_DSN": admin,
        "EPISODES_LAKE_URL": full_day.settings.lake,
    }
    os.environ["BENCHMARK_QUEUE_DSN"] = admin
    from benchmarks.procrastinate_app import app, run_job

    forget_days(full_day)
    plan = record_jobs(full_day, sizes.slow_jobs)
    with running_workers(full_day, 2):
        work_off(full_day)
    full_day.query("queue", "CREATE TABLE procrastinate_outcomes (LIKE ledger.outcomes INCLUDING DEFAULTS)")
    full_day.query("queue", "ALTER TABLE procrastinate_outcomes ALTER worker DROP NOT NULL")
    with app.open():
        app.schema_manager.apply_schema()
        rows = full_day.query("queue", "SELECT position, epid, algorithm_id, window_start FROM ledger.jobs")
        run_job.batch_defer(
            *(
                {
                    "plan_id": plan.plan_id,
                    "position": position,
                    "epid": epid,
                    "algorithm_id": algorithm_id,
                    "window_start": str(window_start),
                    "day": str(inputs.DAY),
                    "version": plan.viewings_version,
                }
                for position, epid, algorithm_id, window_start in rows
            )
        )

    def timed() -> dict[str, Any]:
        argv = [sys.executable, "-m", "benchmarks.procrastinate_app"]
        workers = [
            subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            for _ in range(2)
        ]
        assert [worker.wait() for worker in workers] == [0, 0]
        # From its own events, so that starting the processes does not count.
        ((seconds,),) = full_day.query(
            "queue",
            "SELECT extract(epoch FROM max(at) - min(at))::float8 FROM procrastinate_events"
            " WHERE type IN ('started', 'succeeded')",
        )
        return {"seconds": seconds}

    name = f"Procrastinate, {sizes.slow_jobs:,} jobs one by one"
    measure(GROUP, name, timed, rounds=1, warm=False, jobs=sizes.slow_jobs, workers=2, window_days=3)
    assert metrics_by_job(full_day, "procrastinate_outcomes") == metrics_by_job(full_day)
    full_day.query("queue", "DROP TABLE procrastinate_outcomes")


@pytest.fixture(scope="module")
def catch_up(full_day: System, sizes: Sizes) -> int:
    """A tenth of the jobs catch up: their episodes have viewings for hundreds of days."""
    episodes = sizes.jobs // 10
    random = np.random.default_rng(3)
    first = inputs.DAY - (28 + sizes.catch_up_days) * ONE_DAY
    days = [first + number * ONE_DAY for number in range(sizes.catch_up_days)]
    table = inputs.daily_viewings(days, inputs.epids(0, episodes), random)
    writer = full_day.dsn(Purpose.INPUT_WRITER)
    replace_input(writer, drops=None, drop_days=[], viewings=table, viewing_days=days)
    full_day.query("input", "VACUUM ANALYZE viewings")
    full_day.take_viewings(days[0], days[-1])
    return episodes


def test_catching_up(measure: Measure, full_day: System, sizes: Sizes, catch_up: int) -> None:
    measure_fleet(measure, full_day, "a tenth catches up", sizes.jobs, catching_up=catch_up)


def test_bare_read_of_the_same(measure: Measure, full_day: System, sizes: Sizes, catch_up: int) -> None:
    frame = jobs_frame(sizes.jobs, catching_up=catch_up)
    earliest = frame.groupby("epid")["window_start"].min()

    wanted = {
        "epids": earliest.index.tolist(),
        "since": earliest.dt.date.tolist(),
        "until": inputs.DAY + ONE_DAY,
    }

    def timed() -> dict[str, Any]:
        began = time.perf_counter()
        with stream_arrow(full_day.dsn(Purpose.INPUT), _BARE_READ, is_ours=False, **wanted) as batches:
            rows = sum(batch.num_rows for batch in batches)
        return {"seconds": time.perf_counter() - began, "viewings": rows}

    measure(GROUP, "bare read of the same viewings", timed, jobs=sizes.jobs, workers=1)

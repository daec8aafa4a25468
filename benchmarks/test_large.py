"""Days of a hundred times the usual size: whether they work, in what memory, and whether time grows in step.

Each day begins with nothing: no history, an empty lake, and no other day in the input.
"""

from typing import Any

import pytest

from benchmarks import inputs, large_input
from benchmarks.assets_process import FINISHING, PLANNING
from benchmarks.conftest import Measure, forget_all, import_tracked
from benchmarks.fleet import running_workers, work_off, workers_peak_memory
from benchmarks.processes import run_assets
from benchmarks.sizes import FULL, Sizes
from episodes_assets.days import ONE_DAY
from episodes_assets_tests.support.system import System

pytestmark = pytest.mark.large

# Of a day of viewings.
EPISODES = 250_000
DROP_ROWS = 20_000
# A row in the table, in its index and while that is made, then what is sorted on disk, and the lake's file.
VIEWING_BYTES = 200
# Of a day of jobs.
WINDOW_DAYS = 3
VIEWINGS_EACH = 4
# The catalogue row, the viewings, the job, the outcome and the published row, their indexes and the log.
JOB_BYTES = 3_000
# What PostgreSQL keeps of each job.
KEPT = (("queue", "ledger.jobs"), ("queue", "ledger.outcomes"), ("results", "published.results"))
ALWAYS_BYTES = 6 * 10**9  # the log of four databases


@pytest.mark.parametrize("number", range(len(FULL.large_viewings)))
def test_viewings_of_a_day(measure: Measure, system: System, sizes: Sizes, number: int) -> None:
    if number >= len(sizes.large_viewings):
        pytest.skip("not at this size")
    viewings = sizes.large_viewings[number]
    large_input.require_room(system, ALWAYS_BYTES + viewings * VIEWING_BYTES, f"{viewings:,} viewings")
    day = inputs.DAY
    large_input.begin_anew(system)
    large_input.make_viewings(system, day, viewings, EPISODES)
    large_input.make_drop(system, day, DROP_ROWS, window_days=WINDOW_DAYS)
    large_input.finish(system)
    forget_all(system)

    def timed() -> dict[str, Any]:
        found = run_assets(day, PLANNING)
        newest = system.viewings.newest()
        assert newest is not None
        file = newest.files[day]
        assert file.rows == viewings
        return {**found, "seconds": found["input_episodes"], "bytes": file.size}

    name = f"{viewings:,} viewings taken"
    measure("large: viewings", name, timed, rounds=1, warm=False, viewings=viewings)


@pytest.mark.parametrize("number", range(len(FULL.large_jobs)))
def test_jobs_of_a_day(measure: Measure, system: System, sizes: Sizes, number: int) -> None:
    if number >= len(sizes.large_jobs):
        pytest.skip("not at this size")
    jobs = sizes.large_jobs[number]
    large_input.require_room(system, ALWAYS_BYTES + jobs * JOB_BYTES, f"{jobs:,} jobs")
    day, episodes = inputs.DAY, jobs // 2
    large_input.begin_anew(system)
    large_input.make_viewings_of_each(system, day, episodes, each=VIEWINGS_EACH, days=WINDOW_DAYS)
    large_input.make_drop(system, day, jobs, window_days=WINDOW_DAYS)
    large_input.finish(system)
    forget_all(system)
    import_tracked(system, inputs.epids(0, episodes), day - ONE_DAY)
    system.take_viewings(day - (WINDOW_DAYS - 1) * ONE_DAY, day - ONE_DAY)

    def timed() -> dict[str, Any]:
        planned = run_assets(day, PLANNING)
        with running_workers(system, 2):
            worked = work_off(system, day)
            workers_peak = workers_peak_memory()
        finished = run_assets(day, FINISHING)
        sizes_in_bytes = {
            f"{table}_bytes": system.query(database, "SELECT pg_total_relation_size(%s)", [table])[0][0]
            for database, table in KEPT
        }
        return {
            **sizes_in_bytes,
            "planned": planned["seconds"],
            "worked": worked,
            "published": finished["seconds"],
            "seconds": planned["seconds"] + worked + finished["seconds"],
            "planning_peak_bytes": planned["peak_bytes"],
            "workers_peak_bytes": workers_peak,
            "publishing_peak_bytes": finished["peak_bytes"],
        }

    name = f"{jobs:,} jobs planned, worked and published"
    measure("large: jobs", name, timed, rounds=1, warm=False, jobs=jobs, window_days=WINDOW_DAYS)
    assert system.query("results", "SELECT rows FROM published.days WHERE day = %s", [day]) == [(jobs,)]

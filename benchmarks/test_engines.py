"""The fleet beside one statement of PostgreSQL and one of DuckDB that compute `reach` of the same jobs.

They take turns, round by round, so that whatever else the machine does meanwhile slows all of them.
"""

import time
from collections.abc import Callable, Mapping

import pytest

from benchmarks import inputs
from benchmarks.comparators import in_duckdb, in_postgresql, published_reach, reach_jobs
from benchmarks.conftest import Measure, forget_days
from benchmarks.fleet import running_workers, work_off
from benchmarks.ledger import record_jobs
from benchmarks.sizes import FULL, Sizes
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results.publish import publish_day
from episodes_assets_tests.support.system import System

GROUP = "engines"
FLEET, POSTGRESQL, DUCKDB = "two workers", "one PostgreSQL statement", "one DuckDB statement"
ENGINES = (FLEET, POSTGRESQL, DUCKDB)

Times = Mapping[str, list[float]]


def compare(system: System, sizes: Sizes, window_days: int) -> Times:
    """The seconds of each engine in each round; the first round, which warms all of them, does not count."""
    forget_days(system)
    plan = record_jobs(system, sizes.jobs, window_days=window_days)
    jobs = reach_jobs(system, plan.day)
    assert plan.viewings_version is not None
    times: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    with (
        running_workers(system, 2),
        in_postgresql(system, jobs) as ask_postgresql,
        in_duckdb(system, plan.viewings_version, jobs, plan.day) as ask_duckdb,
    ):
        for _ in range(sizes.rounds if sizes.quick else sizes.rounds + 1):
            forget_days(system)
            record_jobs(system, sizes.jobs, window_days=window_days)
            times[FLEET].append(work_off(system))
            for engine, ask in ((POSTGRESQL, ask_postgresql), (DUCKDB, ask_duckdb)):
                began = time.perf_counter()
                found = ask()
                times[engine].append(time.perf_counter() - began)
                assert len(found) == len(jobs)
        publish(system)
        for ask in (ask_postgresql, ask_duckdb):
            assert ask().equals(published_reach(system, plan.day))
    return {engine: each[-sizes.rounds :] for engine, each in times.items()}


def publish(system: System) -> None:
    with (
        connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue,
        connect(system.dsn(Purpose.RESULTS), autocommit=True) as results,
    ):
        publish_day(queue, results, system.viewings, inputs.DAY, "benchmark")


@pytest.fixture(scope="module")
def compared(full_day: System, sizes: Sizes) -> Callable[[int], Times]:
    """The comparison for a length of windows, which is made once for all engines."""
    found: dict[int, Times] = {}

    def once(window_days: int) -> Times:
        if window_days not in found:
            found[window_days] = compare(full_day, sizes, window_days)
        return found[window_days]

    return once


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("window_days", FULL.compared_windows)
def test_engines(
    measure: Measure, compared: Callable[[int], Times], sizes: Sizes, window_days: int, engine: str
) -> None:
    if window_days not in sizes.compared_windows:
        pytest.skip("not at this size")
    times = iter(compared(window_days)[engine])
    measure(
        GROUP,
        f"{engine}, windows of {window_days} days",
        lambda: {"seconds": next(times)},
        warm=False,
        jobs=sizes.jobs if engine == FLEET else sizes.viewed,
        window_days=window_days,
    )

"""One embedded system for all measurements, with durable settings, in a folder that goes with it."""

import contextlib
import datetime as dt
import os
import shutil
from collections.abc import Callable
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from psycopg.conninfo import make_conninfo
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import inputs
from benchmarks.processes import fork_processes
from benchmarks.sizes import FULL, QUICK, Sizes
from episodes_assets.cli.context import prepare_dagster_home
from episodes_assets.days import ONE_DAY
from episodes_assets.input.loading import replace_input
from episodes_assets.lake import viewings
from episodes_assets.postgres import embedded
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.provision.status import ready_databases
from episodes_assets.results.copies import import_state
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.system import System, throwaway

VIEWING_DAYS = 28

Measure = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="small sizes, to see that all of it still runs")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "large: takes many minutes and tens of GB; by `make bench-large`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The large days come last, since each begins with nothing."""
    items.sort(key=lambda item: item.get_closest_marker("large") is not None)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Keep what explains a figure and nothing that names the machine."""
    del machine_info["node"]
    machine_info["load"] = round(os.getloadavg()[2], 1)


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: object, output_json: dict[str, Any]
) -> None:
    sizes = QUICK if config.getoption("--quick") else FULL
    output_json["sizes"] = vars(sizes)


@pytest.fixture(scope="session")
def sizes(request: pytest.FixtureRequest) -> Sizes:
    return QUICK if request.config.getoption("--quick") else FULL


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, sizes: Sizes) -> System:
    for name in [name for name in os.environ if name.startswith(("EPISODES_", "DAGSTER_"))]:
        del os.environ[name]
    home = throwaway(tmp_path_factory.mktemp("bench"))
    if sizes.quick:  # nobody reads the figures
        fork_processes()
        embedded.sync_later(home)
    os.environ["EPISODES_HOME"] = str(home)
    settings = load_settings()
    dsns = ready_databases(settings, lambda _: None)
    os.environ["DAGSTER_HOME"] = str(prepare_dagster_home(settings))
    with dg.DagsterInstance.get():  # makes Dagster's tables
        pass
    admin = embedded.start(home).dsn(embedded.ADMINISTRATOR, "postgres")
    return System(home, dsns, {d.value: make_conninfo(admin, dbname=d.value) for d in Database})


@pytest.fixture
def measure(benchmark: BenchmarkFixture, sizes: Sizes) -> Measure:
    """Time a function and record what it did.

    Call it with a group and the name of what is timed in it, the function, a function that prepares each
    round, and any facts; what the function returns as a dict is added to them.
    """

    def run(
        group: str,
        name: str,
        function: Callable[[], dict[str, Any] | None],
        *,
        before: Callable[[], object] = lambda: None,
        rounds: int | None = None,
        warm: bool = True,
        **facts: object,
    ) -> None:
        benchmark.group, benchmark.name = group, name
        benchmark.extra_info.update(facts)
        found: list[dict[str, Any]] = []

        def timed() -> None:
            found.append(function() or {})

        if warm and not sizes.quick:
            before()
            function()
        pedantic: Callable[..., None] = benchmark.pedantic
        pedantic(timed, setup=lambda: (before(), None)[1], rounds=rounds or sizes.rounds)
        # Of the rounds that timed themselves, the median one tells.
        found.sort(key=lambda facts: facts.get("seconds", 0))
        benchmark.extra_info.update(found[len(found) // 2])

    return run


@pytest.fixture(scope="session")
def full_day(system: System, sizes: Sizes) -> System:
    """The day's drop, and the viewings of the four weeks up to it."""
    writer = system.dsn(Purpose.INPUT_WRITER)
    day = inputs.DAY
    drop = inputs.drop(sizes.drop_rows, sizes.live)
    replace_input(writer, drops=drop, drop_days=[day], viewings=None, viewing_days=[])
    for back in range(VIEWING_DAYS):
        viewed_on = day - back * ONE_DAY
        viewed = inputs.viewings(
            viewed_on,
            sizes.viewings // VIEWING_DAYS,
            sizes.viewed if viewed_on == day else sizes.live,
            everyone=viewed_on == day,
        )
        replace_input(writer, drops=None, drop_days=[], viewings=viewed, viewing_days=[viewed_on])
    system.query("input", "VACUUM ANALYZE")
    system.take_viewings(day - (VIEWING_DAYS - 1) * ONE_DAY, day)
    return system


def forget_days(system: System) -> None:
    """Empty ledger, state, results and the lake's drops; the input and the lake's viewings stay."""
    system.query(
        "queue",
        "TRUNCATE ledger.plans, ledger.chunks, ledger.jobs, ledger.outcomes, ledger.job_attempts,"
        " ledger.batches, ledger.waivers",
    )
    system.query("queue", "TRUNCATE pgqueuer, pgqueuer_log")
    for table in (
        "state.tracked_days",
        "state.tracked_episodes",
        "published.days",
        "published.history",
        "published.results",
        "published.episodes",
    ):
        system.query("results", f"TRUNCATE {table}")
    for each in system.drops.tables:
        shutil.rmtree(f"{system.settings.lake}/{each.name}", ignore_errors=True)


def forget_all(system: System) -> None:
    """As before the first day: the lake goes as well."""
    forget_days(system)
    shutil.rmtree(system.settings.lake, ignore_errors=True)


def forget_viewings(system: System, day: dt.date) -> None:
    """Let the lake lack a day, as before it was taken."""
    with contextlib.suppress(TableNotFoundError):
        DeltaTable(f"{system.settings.lake}/{viewings.NAME}").delete(f"day = '{day}'")


def import_tracked(system: System, epids: inputs.Ints, as_of: dt.date) -> None:
    """Begin the history with a state."""
    state = pd.DataFrame({"epid": epids, "tracked_on": np.datetime64(as_of, "s")})
    with connect(system.dsn(Purpose.RESULTS), autocommit=True) as results:
        import_state(results, state, as_of, "benchmark")
    system.query("results", "VACUUM ANALYZE")

"""Hundreds of days in one run: to planned jobs, and to published results."""

import datetime as dt
import time
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from benchmarks import inputs
from benchmarks.assets_process import FINISHING, PLANNING
from benchmarks.conftest import Measure, forget_all
from benchmarks.processes import run_explain
from benchmarks.sizes import Sizes
from episodes_assets.days import FIRST_DAY, ONE_DAY
from episodes_assets.input.loading import replace_input
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System, failure

VIEWED = 50
VIEWINGS = 200
ASSETS = (*PLANNING, *FINISHING)


@pytest.fixture(scope="module")
def many_days(system: System, sizes: Sizes) -> list[dt.date]:
    """Their input: drops that premiere a few episodes each day, and viewings for a hundred jobs a day."""
    days = [FIRST_DAY + number * ONE_DAY for number in range(sizes.backfill_days)]
    for number, day in enumerate(days):
        live = VIEWED + number * sizes.backfill_rows // 4 // len(days)
        replace_input(
            system.dsn(Purpose.INPUT_WRITER),
            drops=inputs.drop(sizes.backfill_rows, live, day=day),
            drop_days=[day],
            viewings=inputs.viewings(day, VIEWINGS, VIEWED, everyone=True),
            viewing_days=[day],
        )
    system.query("input", "VACUUM ANALYZE")
    return days


def materialize(system: System, days: list[dt.date], assets: tuple[str, ...]) -> dict[str, Any]:
    began = time.perf_counter()
    result = system.materialize(days[0], days[-1], select=assets)
    seconds = time.perf_counter() - began
    assert result.success, failure(result)
    own: dict[str, float] = {}
    for event in result.get_asset_materialization_events():
        assert event.asset_key is not None
        if event.asset_key == dg.AssetKey("input_viewings"):
            continue  # made by the step of `input_episodes`, whose seconds both say
        metadata = event.step_materialization_data.materialization.metadata
        own[event.asset_key.to_user_string()] = float(metadata["seconds"].value)  # type: ignore[arg-type]
    return {"seconds": seconds, "dagster": seconds - sum(own.values()), **own}


def day_costs(system: System, days: list[dt.date]) -> list[float]:
    """Seconds that each day but the first took, over the three planning assets."""
    newest = system.viewings.newest()
    assert newest is not None
    folder = Path(system.settings.lake) / system.viewings.name
    taken = [(folder / newest.files[day].path).stat().st_mtime for day in days]
    recorded = system.query(
        "results", "SELECT extract(epoch FROM recorded_at)::float8 FROM state.tracked_days ORDER BY day"
    )
    planned = system.query(
        "queue", "SELECT extract(epoch FROM planned_at)::float8 FROM ledger.plans ORDER BY day"
    )
    ends = np.array([taken, [at for (at,) in recorded], [at for (at,) in planned]])
    costs: list[float] = np.diff(ends, axis=1).sum(axis=0).round(5).tolist()
    return costs


def test_to_planned_jobs(measure: Measure, system: System, sizes: Sizes, many_days: list[dt.date]) -> None:
    def timed() -> dict[str, Any]:
        found = materialize(system, many_days, PLANNING)
        costs = day_costs(system, many_days)
        edge = max(len(costs) // 9, 1)
        return {
            **found,
            "day_costs": costs,
            "first_days": float(np.median(costs[:edge])),
            "last_days": float(np.median(costs[-edge:])),
        }

    name = f"{len(many_days)} days to planned jobs"
    measure("backfill", name, timed, before=lambda: forget_all(system), rounds=1, warm=False)


def test_to_published_results(
    measure: Measure, system: System, sizes: Sizes, many_days: list[dt.date]
) -> None:
    days = many_days[: sizes.published_days]
    with system.workers(2):
        measure(
            "backfill",
            f"{len(days)} days to published results",
            lambda: materialize(system, days, ASSETS),
            before=lambda: forget_all(system),
            rounds=1,
            warm=False,
        )
    assert system.query("results", "SELECT count(*), sum(rows) FROM published.days")[0][0] == len(days)


def test_explaining_a_row_of_many_days(
    measure: Measure, system: System, sizes: Sizes, many_days: list[dt.date]
) -> None:
    """With all that is on record of each day: lake, state, plan and jobs."""
    days = many_days[: sizes.published_days]
    ((epid,),) = system.query("results", "SELECT max(epid) FROM published.reach WHERE day = %s", [days[-1]])
    name = f"`episodes explain`, {len(days)} days with lake, state and plans"
    measure("explaining", name, lambda: run_explain(days[-1], epid, "reach"))

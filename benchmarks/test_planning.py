"""Planning a day from database to database, against moving the same rows and nothing else."""

from typing import Any

import pytest

from benchmarks import inputs
from benchmarks.assets_process import PLANNING
from benchmarks.conftest import Measure, forget_days, forget_viewings, import_tracked
from benchmarks.ledger import record_jobs
from benchmarks.processes import in_a_process, run_assets
from benchmarks.sizes import FULL, Sizes
from episodes_assets.days import ONE_DAY
from episodes_assets.input.loading import replace_input
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System


@pytest.mark.parametrize("tracked", FULL.tracked)
@pytest.mark.parametrize("what", ["planned", "bare transfer"])
def test_planning_a_day(measure: Measure, full_day: System, sizes: Sizes, what: str, tracked: int) -> None:
    at = FULL.tracked.index(tracked)
    if at >= len(sizes.tracked):
        pytest.skip("not at this size")
    tracked = sizes.tracked[at]

    def before() -> None:
        forget_days(full_day)
        if what == "planned":
            forget_viewings(full_day, inputs.DAY)
        import_tracked(full_day, inputs.epids(0, max(tracked, sizes.live)), inputs.DAY - ONE_DAY)
        if what == "bare transfer":
            record_jobs(full_day, sizes.jobs)

    def timed() -> dict[str, Any]:
        if what == "planned":
            return run_assets(inputs.DAY, PLANNING)
        found = in_a_process("benchmarks.transfer_process", str(inputs.DAY), full_day.admin["queue"])
        assert (found["rows"], found["jobs"]) == (sizes.drop_rows, sizes.jobs)
        return found

    name = f"{what}, {tracked:,} tracked"
    measure("planning a day", name, timed, before=before, warm=False, rows=sizes.drop_rows, tracked=tracked)
    assert len(full_day.jobs(inputs.DAY)) == sizes.jobs


def test_a_day_many_times_as_big(measure: Measure, full_day: System, sizes: Sizes) -> None:
    if sizes.big_factor == 1:
        pytest.skip("not at this size")
    day = inputs.DAY + ONE_DAY
    rows = sizes.drop_rows * sizes.big_factor
    forget_days(full_day)
    import_tracked(full_day, inputs.epids(0, sizes.live), day - ONE_DAY)
    drop = inputs.drop(rows, sizes.live, day=day)
    replace_input(
        full_day.dsn(Purpose.INPUT_WRITER), drops=drop, drop_days=[day], viewings=None, viewing_days=[]
    )
    del drop
    full_day.query("input", "VACUUM ANALYZE episodes")
    name = f"planned, {rows:,} rows"
    measure("a big day", name, lambda: run_assets(day, PLANNING), warm=False, rounds=1, rows=rows)
    full_day.query("input", "DELETE FROM episodes WHERE batch_date = %s", [day])
    full_day.query("input", "VACUUM FULL episodes")

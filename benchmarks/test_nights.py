"""Days one after the other, with the statistics taken in between, as it is every night.

The statistics then know all days but the one that is worked, which is when a planner is most wrong.
"""

import time
from typing import Any

from benchmarks import inputs
from benchmarks.conftest import Measure, forget_days
from benchmarks.fleet import running_workers, work_off
from benchmarks.ledger import record_jobs
from benchmarks.sizes import Sizes
from episodes_assets.days import ONE_DAY
from episodes_assets.ledger import verify
from episodes_assets.ledger.plans import Plan
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import publications, publish
from episodes_assets.results.verify import read_publication
from episodes_assets_tests.support.system import System


def test_nights(measure: Measure, full_day: System, sizes: Sizes) -> None:
    days = [inputs.DAY - back * ONE_DAY for back in reversed(range(sizes.nights))]

    def timed() -> dict[str, Any]:
        parts: dict[str, list[float]] = {"planned": [], "worked": [], "published": [], "checked": []}
        for day in days:
            began = time.perf_counter()
            plan = record_jobs(full_day, sizes.jobs, day=day, is_analysed=False)
            parts["planned"].append(time.perf_counter() - began)
            parts["worked"].append(work_off(full_day, day))
            began = time.perf_counter()
            _publish(full_day, plan)
            parts["published"].append(time.perf_counter() - began)
            began = time.perf_counter()
            _check(full_day, plan)
            parts["checked"].append(time.perf_counter() - began)
            for database in ("queue", "results"):
                full_day.query(database, "ANALYZE")
        return {"seconds": sum(map(sum, parts.values())), **parts}

    forget_days(full_day)
    for database in ("queue", "results"):
        full_day.query(database, "ANALYZE")
    with running_workers(full_day, 2):
        measure("nights", f"{len(days)} nights", timed, rounds=1, warm=False, jobs=sizes.jobs)


def _publish(system: System, plan: Plan) -> None:
    with (
        connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue,
        connect(system.dsn(Purpose.RESULTS), autocommit=True) as results,
    ):
        publish.publish_day(queue, results, system.viewings, plan.day, "benchmark")


def _check(system: System, plan: Plan) -> None:
    """What the asset checks read back."""
    with (
        connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue,
        connect(system.dsn(Purpose.RESULTS), autocommit=True) as results,
    ):
        verify.read_ledger_days(queue, system.dsn(Purpose.QUEUE), [plan])
        verify.count_outcomes(queue, [plan.plan_id])
        manifests = publications.read_days(results, plan.day, plan.day)
        read_publication(queue, results, manifests)

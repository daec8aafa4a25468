"""One sensor tick hands out a day, against PgQueuer's own enqueue and Dagster's dynamic outputs."""

import time
from typing import Any

import dagster as dg
import pytest
from pgqueuer.db import SyncPsycopgDriver
from pgqueuer.queries import SyncQueries

from benchmarks.conftest import Measure, forget_days
from benchmarks.ledger import record_jobs
from benchmarks.sizes import FULL, Sizes
from episodes_assets.definitions import build_defs
from episodes_assets.defs.sensors import fan_out
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System


@pytest.mark.parametrize("jobs", FULL.fan_out_jobs)
def test_one_tick(measure: Measure, system: System, sizes: Sizes, jobs: int) -> None:
    at = FULL.fan_out_jobs.index(jobs)
    if at >= len(sizes.fan_out_jobs):
        pytest.skip("not at this size")
    jobs = sizes.fan_out_jobs[at]

    resources = build_defs().resources

    def before() -> None:
        forget_days(system)
        record_jobs(system, jobs)

    def timed() -> dict[str, Any]:
        began = time.perf_counter()
        with dg.build_sensor_context(resources=resources) as context:
            fan_out(context)
        seconds = time.perf_counter() - began
        assert system.query("queue", "SELECT jobs FROM ledger.backlog") == [(jobs,)]
        return {"seconds": seconds}

    measure("fan-out", f"one sensor tick, {jobs:,} jobs", timed, before=before, jobs=jobs)


def test_a_message_for_each_job(measure: Measure, system: System, sizes: Sizes) -> None:
    def timed() -> dict[str, Any]:
        with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
            began = time.perf_counter()
            payloads = [b'{"plan_id": 1, "chunk": %d}' % number for number in range(sizes.jobs)]
            SyncQueries(SyncPsycopgDriver(queue)).enqueue(
                ["nobody"] * sizes.jobs, [*payloads], [0] * sizes.jobs
            )
            return {"seconds": time.perf_counter() - began}

    measure(
        "fan-out",
        f"PgQueuer's enqueue, a message for each of {sizes.jobs:,} jobs",
        timed,
        before=lambda: forget_days(system),
        jobs=sizes.jobs,
    )
    forget_days(system)


def test_dynamic_outputs(measure: Measure, system: System, sizes: Sizes) -> None:
    outputs = sizes.dynamic_outputs

    @dg.op(out=dg.DynamicOut(int))
    def every_job() -> Any:
        for number in range(outputs):
            yield dg.DynamicOutput(number, mapping_key=str(number))

    @dg.op
    def one_job(number: int) -> int:
        return number

    @dg.job(executor_def=dg.in_process_executor)
    def dynamic() -> None:
        every_job().map(one_job)

    def timed() -> dict[str, Any]:
        with dg.DagsterInstance.get() as instance:
            began = time.perf_counter()
            result = dynamic.execute_in_process(
                instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
            )
        assert len(result.output_for_node("one_job")) == outputs
        return {"seconds": time.perf_counter() - began}

    measure(
        "fan-out", f"Dagster's dynamic outputs, {outputs:,} jobs", timed, rounds=1, warm=False, jobs=outputs
    )

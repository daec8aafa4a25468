"""From a planned day to its first outcome in a running system: daemon, sensors, workers."""

import socket
import statistics
import subprocess
import time
from typing import Any

import pytest

from benchmarks import inputs
from benchmarks.conftest import Measure, forget_days
from benchmarks.sizes import Sizes
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.days import FIRST_DAY, ONE_DAY
from episodes_assets.input.loading import replace_input
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System

LATENCIES = """
    SELECT extract(epoch FROM min(finished_at) - planned_at)::float8,
        extract(epoch FROM fanned_out_at - planned_at)::float8
    FROM ledger.plans JOIN ledger.outcomes USING (plan_id) GROUP BY plan_id
"""
DAEMON_SECONDS = 5  # how often Dagster's daemon looks at sensors; they have no shorter interval
PATIENCE_SECONDS = 120


def test_latency(measure: Measure, system: System, sizes: Sizes) -> None:
    if not sizes.latency_days:
        pytest.skip("the tests run it")
    forget_days(system)
    days = [FIRST_DAY + number * ONE_DAY for number in range(sizes.latency_days)]
    for day in days:
        replace_input(
            system.dsn(Purpose.INPUT_WRITER),
            drops=inputs.drop(2_000, 100, day=day),
            drop_days=[day],
            viewings=inputs.viewings(day, 400, 100, everyone=True),
            viewing_days=[day],
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = episodes_argv("up", "--workers", "2", "--port", str(port))
    up = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # The first day tells when all parts are up; it does not count.
        def timed() -> dict[str, Any]:
            for done, day in enumerate(days, start=1):
                system.plan(day)
                deadline = time.monotonic() + PATIENCE_SECONDS
                while len(found := system.query("queue", LATENCIES)) < done:
                    assert time.monotonic() < deadline, "no outcome"
                    time.sleep(0.05)
            counted = found[1:] or found
            return {
                "seconds": statistics.median(latency for latency, _ in counted),
                "until_handed_out": statistics.median(handed for _, handed in counted),
                "after_that": statistics.median(latency - handed for latency, handed in counted),
                "sensor_seconds": DAEMON_SECONDS,
            }

        measure("latency", f"planned to first outcome, {len(days)} days", timed, rounds=1, warm=False)
    finally:
        up.terminate()
        up.wait(timeout=60)

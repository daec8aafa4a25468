"""Publishing a day, against COPY of the same rows into a table like it."""

import time
from typing import Any

import pytest

from benchmarks import inputs
from benchmarks.conftest import Measure, forget_days
from benchmarks.ledger import record_jobs
from benchmarks.sizes import Sizes
from episodes_assets.ledger.plans import Plan
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import publish
from episodes_assets_tests.support.system import System

_ROWS = """
    COPY (SELECT %s::date, epid, algorithm_id, window_start, %s::date, covered_from, metrics
        FROM ledger.jobs JOIN ledger.outcomes USING (plan_id, position) ORDER BY epid, algorithm_id)
    TO STDOUT
"""


@pytest.fixture(scope="module")
def finished(system: System, sizes: Sizes) -> Plan:
    forget_days(system)
    plan = record_jobs(system, sizes.jobs)
    system.finish_jobs()
    return plan


def test_publishing(measure: Measure, system: System, sizes: Sizes, finished: Plan) -> None:
    def before() -> None:
        system.query("results", "TRUNCATE published.results, published.days, published.history")

    def timed() -> dict[str, Any]:
        with (
            connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue,
            connect(system.dsn(Purpose.RESULTS), autocommit=True) as results,
        ):
            began = time.perf_counter()
            day, changed = publish.publish_day(queue, results, system.viewings, finished.day, "benchmark")
        assert (day.rows, changed) == (sizes.jobs, True)
        return {"seconds": time.perf_counter() - began}

    measure("publishing", "published", timed, before=before, jobs=sizes.jobs)


def test_bare_copy(measure: Measure, system: System, sizes: Sizes, finished: Plan) -> None:
    with (
        connect(system.admin["queue"]) as queue,
        queue.cursor() as cursor,
        cursor.copy(_ROWS, [inputs.DAY, inputs.DAY]) as copy,
    ):
        rows = b"".join(copy)
    assert rows.count(b"\n") == sizes.jobs

    def before() -> None:
        system.query("results", "DROP TABLE IF EXISTS bare_results")
        system.query("results", "CREATE TABLE bare_results (LIKE published.results INCLUDING ALL)")

    def timed() -> dict[str, Any]:
        with connect(system.admin["results"], autocommit=True) as results, results.cursor() as cursor:
            began = time.perf_counter()
            with cursor.copy("COPY bare_results FROM STDIN") as copy:
                copy.write(rows)
        return {"seconds": time.perf_counter() - began}

    measure("publishing", "bare COPY in", timed, before=before, jobs=sizes.jobs)
    system.query("results", "DROP TABLE bare_results")

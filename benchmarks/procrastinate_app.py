"""The same jobs under Procrastinate, one by one: `python -m benchmarks.procrastinate_app` is a worker.

It ends when the queue is empty. BENCHMARK_QUEUE_DSN names the database, EPISODES_LAKE_URL the lake.
"""

import datetime as dt
import functools
import os

import numpy as np
import procrastinate
import psycopg

from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.worker.compute import JobWindows, run_micro_batch

QUEUE_DSN = os.environ.get("BENCHMARK_QUEUE_DSN", "")

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=QUEUE_DSN))


@functools.cache
def ledger() -> psycopg.Connection:
    """This process's connection for outcomes."""
    return psycopg.connect(QUEUE_DSN, autocommit=True)


@app.task(name="run_job", queue="benchmark")
def run_job(
    *, plan_id: int, position: int, epid: int, algorithm_id: int, window_start: str, day: str, version: int
) -> None:
    """Run one job and write its outcome."""
    window = JobWindows(
        np.array([epid], dtype=np.int64),
        np.array([algorithm_id], dtype=np.int16),
        np.array([window_start], dtype="datetime64[D]"),
    )
    lake = os.environ["EPISODES_LAKE_URL"]
    outcome = run_micro_batch(lake, PinnedVersion(version, None), dt.date.fromisoformat(day), window).outcomes
    ledger().execute(
        "INSERT INTO procrastinate_outcomes (plan_id, position, covered_from, metrics, algorithm_version)"
        " VALUES (%s, %s, %s, %s, %s)",
        [plan_id, position, *(outcome[name][0] for name in ("covered_from", "metrics", "algorithm_version"))],
    )


if __name__ == "__main__":
    app.run_worker(queues=["benchmark"], concurrency=1, wait=False)

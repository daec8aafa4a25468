"""Real worker processes for measurements, and how long they take for a day."""

import datetime as dt
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from benchmarks import inputs
from benchmarks.assets_process import peak_memory
from benchmarks.processes import are_forked, forked_workers
from episodes_assets.cli.supervisor import ProcessGroup, episodes_argv, worker_environment
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System

POLL_SECONDS = 0.01


@contextmanager
def running_workers(system: System, count: int) -> Iterator[None]:
    """Workers that are ready when the block begins."""
    environment = worker_environment(system.settings, system.dsns)
    if are_forked():
        with forked_workers({**os.environ, **environment}, count):
            yield
        return
    ready = threading.Semaphore(0)

    def watch(name: str, line: str) -> None:
        if "is ready" in line:
            ready.release()

    group = ProcessGroup(watch)
    try:
        for number in range(count):
            group.start(f"worker-{number}", episodes_argv("worker"), environment)
        for _ in range(count):
            if not ready.acquire(timeout=60):
                raise TimeoutError("a worker did not get ready")
        yield
    finally:
        group.stop()


def work_off(system: System, day: dt.date = inputs.DAY) -> float:
    """Hand a day out and wait until every job has its outcome; the seconds it takes."""
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        began = time.perf_counter()
        fan_out_day(queue, day)
        while (progress := read_progress(queue, [day])[0]).is_open:
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
    assert progress.is_done, "jobs were held"
    return seconds


def workers_peak_memory() -> int:
    """The most memory that one of our workers, or of their computations, ever had, in bytes."""
    peaks = [0]
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            if "postgres" not in process.name():
                peaks.append(peak_memory(process.pid))
    return max(peaks)


def metrics_by_job(system: System, table: str = "ledger.outcomes") -> dict[tuple[int, int], object]:
    """What came of each job."""
    rows = system.query(
        "queue", f"SELECT epid, algorithm_id, metrics FROM ledger.jobs JOIN {table} USING (plan_id, position)"
    )
    return {(epid, algorithm_id): metrics for epid, algorithm_id, metrics in rows}

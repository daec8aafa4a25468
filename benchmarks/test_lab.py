"""Labs: a day cloned whole and as a sample, verified, and how fast viewers get pseudonyms.

A clone's memory is that of the largest of its processes; PostgreSQL's is not in it.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks import inputs
from benchmarks.assets_process import FINISHING, PLANNING
from benchmarks.conftest import Measure, forget_days, import_tracked
from benchmarks.fleet import running_workers, work_off
from benchmarks.processes import run_assets
from benchmarks.sizes import Sizes
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.days import ONE_DAY
from episodes_assets.input.loading import replace_input
from episodes_assets.lab.pseudonyms import KEY_BYTES, Pseudonyms
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System

GROUP, LAB = "labs", "bench"
WINDOW_DAYS = 28
WHOLE = "100%"
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE usename IN ('episodes_queue_reader', 'episodes_results_reader')
"""
_POLL_SECONDS = 0.1  # a look takes 6 ms of a processor that the clone needs as well


@pytest.fixture(scope="module")
def published_day(full_day: System, sizes: Sizes) -> Iterator[System]:
    """The day as it is published: each job looks at four weeks, and many episodes are tracked."""
    if sizes.quick:
        pytest.skip("the tests run it")
    let_drop_ask_for(full_day, sizes, WINDOW_DAYS)
    forget_days(full_day)
    import_tracked(full_day, inputs.epids(0, sizes.tracked[-1]), inputs.DAY - ONE_DAY)
    run_assets(inputs.DAY, PLANNING)
    with running_workers(full_day, 2):
        work_off(full_day)
    run_assets(inputs.DAY, FINISHING)
    yield full_day
    forget_days(full_day)
    let_drop_ask_for(full_day, sizes, 3)


def let_drop_ask_for(system: System, sizes: Sizes, window_days: int) -> None:
    drop = inputs.drop(sizes.drop_rows, sizes.live, window_days=window_days)
    writer = system.dsn(Purpose.INPUT_WRITER)
    replace_input(writer, drops=drop, drop_days=[inputs.DAY], viewings=None, viewing_days=[])


def run(system: System, *arguments: str) -> dict[str, Any]:
    """Run a command.

    Returns:
        Its seconds, the most memory of one of its processes in bytes, and the most sessions at the source.
    """
    began, sessions, peak = time.perf_counter(), 0, 0
    with (
        connect(system.admin["queue"], autocommit=True) as connection,
        subprocess.Popen(episodes_argv(*arguments), stdout=subprocess.DEVNULL) as process,
    ):
        while process.poll() is None:
            (found,) = connection.execute(SESSIONS).fetchone() or (0,)
            sessions, peak = max(sessions, found), max(peak, peak_bytes(process.pid))
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - began
    assert process.returncode == 0, arguments
    return {"seconds": seconds, "peak_bytes": peak, "sessions": sessions}


def peak_bytes(pid: int) -> int:
    """The most memory that a process or one of its descendants has had (VmHWM); 0 if it has ended."""
    with suppress(psutil.Error, OSError):
        running = [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]
        texts = [Path(f"/proc/{each}/status").read_text() for each in running]
        found = [re.search(r"VmHWM:\s+(\d+)", text) for text in texts]
        return max((1024 * int(each[1]) for each in found if each), default=0)
    return 0


@pytest.mark.parametrize("share", [WHOLE, "5%"])
def test_cloning_a_day(measure: Measure, published_day: System, sizes: Sizes, share: str) -> None:
    sample = [] if share == WHOLE else ["--share", share]
    clone = ("lab", "clone", str(inputs.DAY), "--name", LAB, *sample)
    home = published_day.settings.home / "labs" / LAB

    def before() -> None:
        if home.exists():
            run(published_day, "lab", "drop", LAB)

    facts = {"viewings": sizes.viewings, "jobs": sizes.jobs, "tracked": sizes.tracked[-1]}
    name = "cloned whole" if share == WHOLE else f"cloned, a share of {share}"
    measure(GROUP, name, lambda: run(published_day, *clone), before=before, warm=False, **facts)
    before()


def test_verifying_a_clone(measure: Measure, published_day: System) -> None:
    run(published_day, "lab", "clone", str(inputs.DAY), "--name", LAB)
    verify = ("lab", "verify", LAB)
    measure(GROUP, "verified whole", lambda: run(published_day, *verify), warm=False, rounds=1)
    run(published_day, "lab", "drop", LAB)


def test_pseudonyms(measure: Measure, sizes: Sizes) -> None:
    ids = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, sizes.viewings, dtype=np.int64)
    pseudonyms = Pseudonyms(bytes(KEY_BYTES))
    measure(GROUP, "pseudonyms", lambda: {"found": len(pseudonyms.of_ids(ids))}, ids=len(ids))

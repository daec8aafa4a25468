"""Labs: a day cloned whole and as a sample, verified, and how fast viewers get pseudonyms."""

import resource
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
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
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System

GROUP = "labs"
WINDOW_DAYS = 28


@pytest.fixture(scope="module")
def published_day(full_day: System, sizes: Sizes) -> Iterator[System]:
    """The day as it is published: each job looks at four weeks, and many episodes are tracked."""
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


def run(*arguments: str) -> dict[str, Any]:
    """A command's seconds, and the most memory that it or a process of its had, in bytes."""
    began = time.perf_counter()
    subprocess.run(episodes_argv(*arguments), check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": seconds, "peak_bytes": peak}


@pytest.mark.parametrize("share", ["", "5%"], ids=["whole", "a share of 5 %"])
def test_cloning_a_day(measure: Measure, published_day: System, sizes: Sizes, share: str) -> None:
    sample = ["--share", share] if share else []
    clone = ("lab", "clone", str(inputs.DAY), "--name", "bench", *sample)
    made = False

    def before() -> None:
        if made:
            subprocess.run(episodes_argv("lab", "drop", "bench"), check=True, stdout=subprocess.DEVNULL)

    def timed() -> dict[str, Any]:
        nonlocal made
        found = run(*clone)
        made = True
        return found

    name = f"cloned, a share of {share}" if share else "cloned whole"
    measure(GROUP, name, timed, before=before, warm=False, viewings=sizes.viewings, jobs=sizes.jobs)
    before()


def test_verifying_a_clone(measure: Measure, published_day: System, sizes: Sizes) -> None:
    run("lab", "clone", str(inputs.DAY), "--name", "bench")
    measure(GROUP, "verified whole", lambda: run("lab", "verify", "bench"), warm=False, rounds=1)
    run("lab", "drop", "bench")


def test_pseudonyms(measure: Measure, sizes: Sizes) -> None:
    ids = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, sizes.viewings, dtype=np.int64)
    pseudonyms = Pseudonyms(bytes(KEY_BYTES))
    measure(GROUP, "pseudonyms", lambda: {"told": len(pseudonyms.of_ids(ids))}, ids=len(ids))

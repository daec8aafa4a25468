"""A real worker takes the profiles that its queue asks for, of what it computes and of what hangs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from episodes_assets.ledger import plans, profiles
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.profiles import State
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.profiling.engines import Engine, Sampling
from episodes_assets.profiling.stacks import MOST_BYTES
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.plans import jobs_of
from episodes_assets_tests.support.poisoned import FINDS_THEM
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.workers import worker

pytestmark = [pytest.mark.process, pytest.mark.long]

HANGS = 91
POISONED = pd.Timestamp("2018-02-13")
LIMIT_SECONDS = 12


def children_of(pid: int) -> list[psutil.Process]:
    return list(psutil.Process(pid).children(recursive=True))


@pytest.mark.slow
def test_a_worker_profiles_its_batch_and_what_hangs_in_it(system: System, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FINDS_THEM)
    env = {
        "PYTHONPATH": str(tmp_path),
        "EPISODES_MAX_STARTS": "50",
        "EPISODES_RETRY_SECONDS": "0.1",
        "EPISODES_ALGORITHM_TIMEOUT_SECONDS": json.dumps({"hangs": LIMIT_SECONDS}),
    }
    jobs = jobs_of(1).assign(algorithm_id=np.array([HANGS], dtype=np.int16), window_start=POISONED)
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        plans.record_plan(
            queue,
            day(1),
            jobs,
            checksum="c",
            snapshot_id="s",
            code_version="1",
            chunk_jobs=10,
            viewings=system.take_viewings(day(1), day(1)),
        )
        fan_out_day(queue, day(1))
        # One that no batch is of, and one of the batch that hangs.
        other, wanted = (
            profiles.request_batches(queue, 1, Sampling(), requested_by="ana", day=each)[0]
            for each in (day(2), day(1))
        )

        def state(number: int) -> str:
            return profiles.read_profile(queue, number)[0].state

        with worker(system, **env) as process:
            eventually(lambda: state(wanted) == State.RUNNING)
            shown, _ = output("profile", "attach", "worker-1", "--seconds", "0.5", "--wait", "60")
            assert ", worker " in shown
            # The line that hangs, and no thread that is there only to wait.
            assert "100.0%" in shown
            assert "worker/poison/hangs.py:" in shown
            eventually(lambda: state(wanted) == State.DONE)
            # The job is started again, and hangs again. A worker that is killed then leaves nothing
            # behind that goes on.
            output("profile", "attach", str(process.pid), "--seconds", "600", "--wait", "0")
            last = profiles.read_profiles(queue, 1)[0].profile_id
            eventually(lambda: state(last) == State.RUNNING)
            if profiles.read_profile(queue, wanted)[0].engine == Engine.PY_SPY:
                eventually(lambda: any(each.name() == "py-spy" for each in children_of(process.pid)))
            children = children_of(process.pid)
            process.kill()
            _, alive = psutil.wait_procs(children, timeout=30)
            assert alive == []
        assert state(other) == State.WAITING
        _, profile = profiles.read_profile(queue, wanted)
        ((stored,),) = system.query(
            "queue", "SELECT octet_length(stacks) FROM ledger.profiles WHERE profile_id = %s", [wanted]
        )
    assert profile is not None
    assert stored < MOST_BYTES
    # Hung from its begin to its limit, in the line that sleeps; what goes on around it is not shown.
    hung = sum(count for stack, count in profile.stacks.items() if stack[-1].file.endswith("poison/hangs.py"))
    assert hung > 0.8 * profile.samples
    assert {stack[0].file for stack in profile.stacks} == {"episodes_assets/worker/compute.py"}
    assert hung / profile.rate == pytest.approx(LIMIT_SECONDS, rel=0.5)
    # The job fails as it does without a profile.
    ((error,),) = system.query("queue", "SELECT error FROM ledger.job_attempts")
    assert f"longer than {LIMIT_SECONDS} seconds" in error

    listed, _ = output("profile", "list")
    assert "micro-batch of 2018-03-01 by" in listed
    assert "never taken" not in listed
    folded, _ = output("profile", "show", str(wanted), "--folded", "-")
    assert "worker/poison/hangs.py:" in folded
    path = tmp_path / "x.json"
    output("profile", "show", str(wanted), "--speedscope", str(path))
    assert any(each["name"] == "compute" for each in json.loads(path.read_text())["shared"]["frames"])
    assert "profile 1 holds nothing (waits)" in str(refusal("profile", "show", str(other)))
    assert "there is no profile 99" in str(refusal("profile", "show", "99"))
    assert "no worker that lives" in str(refusal("profile", "attach", "nobody"))


def test_a_request_that_nobody_takes_is_told(system: System) -> None:
    shown, _ = output("profile", "workers", "2018-03-01", "--batches", "2", "--wait", "0")
    assert "micro-batch of 2018-03-01: waits" in shown
    assert "Look again later" in shown

"""Workers are killed one after the other while they work a day; the day comes out as in calm."""

import time

import pytest

from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import (
    assert_same,
    fingerprint,
    forget_day,
    published_bytes,
)
from episodes_assets_tests.chaos.fleet import Fleet, fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import run_days
from episodes_assets_tests.support.run_process import own_process
from episodes_assets_tests.support.system import System, day

REST = ["job_outcomes", "published_results"]
HEARTBEAT_SECONDS = "2"
SECONDS_BETWEEN_KILLS = 1.0
WORKERS = 3


@pytest.mark.slow
def test_workers_killed_one_after_the_other(
    system: System, chaos: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first day catches up from the premieres, so its chunks hold few jobs: enough of them to be hit.
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "100")
    system.generate(day(1), day(1), episodes=chaos.pick(short=450, long=16_000))
    most_kills = chaos.pick(short=2, long=60)
    with fleet(system, WORKERS, EPISODES_HEARTBEAT_SECONDS=HEARTBEAT_SECONDS) as workers:
        system.plan(day(1))
        jobs = len(system.jobs(day(1)))
        calm_seconds, _ = work(system, chaos, workers, 0)
        calm, calm_rows = fingerprint(system), published_bytes(system, day(1))
        forget_day(system, day(1))
        system.plan(day(1))
        with chaos.attack(Promise.WORKERS, "SIGKILL to a worker that holds a claim") as attack:
            seconds, kills = work(system, chaos, workers, most_kills)
            attack.times = kills
            assert_same(fingerprint(system), calm)
            assert published_bytes(system, day(1)) == calm_rows
            assert system.query("queue", "SELECT count(*) FROM ledger.outcomes") == [(jobs,)]
    assert kills > 0
    chaos.record.figures[f"{jobs:,} jobs, {WORKERS} workers: in calm"] = f"{calm_seconds:.1f} s"
    chaos.record.figures[f"the same with {kills} workers killed and replaced"] = (
        f"{seconds:.1f} s, {seconds / calm_seconds:.2f} x"
    )


def work(system: System, chaos: Chaos, workers: Fleet, most_kills: int) -> tuple[float, int]:
    """Publish the planned day, killing a worker now and then; how long it took, how many were killed."""
    began = time.monotonic()
    kills, next_kill = 0, began
    with own_process(run_days, system, day(1), None, REST) as run:
        while run.process.is_alive():
            busy = (
                busy_workers(system, workers) if kills < most_kills and time.monotonic() > next_kill else []
            )
            if busy:
                workers.kill(chaos.random.choice(busy))
                workers.start()
                kills, next_kill = kills + 1, time.monotonic() + SECONDS_BETWEEN_KILLS
            else:
                run.process.join(0.03)
        end = run.result()
    assert end.success, end.message
    return time.monotonic() - began, kills


def busy_workers(system: System, workers: Fleet) -> list[int]:
    """The workers that hold a claim, in the order they were started."""
    names = {
        name
        for (name,) in system.query("queue", "SELECT claimed_by FROM ledger.chunks WHERE claim IS NOT NULL")
    }
    return [pid for pid in workers.workers if workers.name(pid) in names]

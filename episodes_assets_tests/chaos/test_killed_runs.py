"""A Dagster run is killed before, during and after each asset's write; run again, it ends as in calm."""

from pathlib import Path

import pytest

from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import (
    Fingerprint,
    assert_nothing_is_half_done,
    assert_same,
    fingerprint,
    forget_day,
)
from episodes_assets_tests.chaos.fleet import fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import run_days
from episodes_assets_tests.support.faults import Instant, phases
from episodes_assets_tests.support.lake_contents import Copies
from episodes_assets_tests.support.run_process import counted, killed_at, own_process
from episodes_assets_tests.support.system import System, day

ASSETS = ("input_episodes", "tracked_episodes", "episode_jobs", "job_outcomes", "published_results")
PHASES = ("before", "during", "after")
DAY = day(2)


def calm_run(system: System, place: Path) -> tuple[list[Instant], Fingerprint, Copies]:
    """Run two days in calm.

    Returns:
        The instants of the second, what the system then holds, and the lake as it was before the second.
    """
    system.generate(day(1), DAY, episodes=60)
    system.insert_drop(DAY, [(epid, 0, DAY, DAY) for epid in (7, 8)])  # newly tracked that day
    with own_process(run_days, system, day(1)) as run:
        assert run.result().success
    before = Copies.of({"lake": Path(system.settings.lake)}, place)
    with own_process(counted, system.settings.lake, run_days, system, DAY) as counting:
        instants, end = counting.result()
    assert end.success, end.message
    return instants, fingerprint(system), before


def undo(system: System, before: Copies) -> None:
    """Let the second day be as if it had never been run."""
    forget_day(system, DAY)
    before.restore()


def kill_at(system: System, instant: Instant) -> None:
    """Run the day and let its process die at an instant."""
    with own_process(killed_at, instant, system.settings.lake, run_days, system, DAY) as run:
        assert run.was_killed(), f"{instant} was not reached"
    assert_nothing_is_half_done(system)


def finish(system: System, calm: Fingerprint) -> None:
    """Run the day again, undisturbed: it must come out as in calm."""
    with own_process(run_days, system, DAY) as run:
        end = run.result()
    assert end.success, end.message
    assert_same(fingerprint(system), calm)


@pytest.mark.slow
def test_a_run_killed_in_each_asset_before_during_and_after_its_write(
    system: System, chaos: Chaos, tmp_path: Path
) -> None:
    with fleet(system, 1):
        instants, calm, before = calm_run(system, tmp_path / "before")
        for phase in chaos.pick(short=[chaos.random.choice(PHASES)], long=list(PHASES)):
            undo(system, before)
            for asset in ASSETS:
                instant = chaos.random.choice(phases(instants, asset)[phase])
                with chaos.attack(Promise.RUNS, f"SIGKILL {phase} the write of each asset in turn"):
                    kill_at(system, instant)
            with chaos.attack(Promise.RUNS, "running again a day that was killed in each of its assets"):
                finish(system, calm)


def test_a_run_killed_at_each_instant(system: System, chaos: Chaos, tmp_path: Path) -> None:
    if not chaos.is_long:
        pytest.skip("make chaos does")
    with fleet(system, 1):
        instants, calm, before = calm_run(system, tmp_path / "before")
        for instant in instants:
            undo(system, before)
            with chaos.attack(
                Promise.RUNS, f"SIGKILL at each statement and file operation of {instant.asset}"
            ):
                kill_at(system, instant)
                finish(system, calm)

"""Two runs of a day, two backfills that overlap, a replanning while workers drain: they end as one."""

from collections.abc import Sequence
from functools import partial

import pytest

from episodes_assets_tests.chaos.at_once import deadlocks, in_processes
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import Fingerprint, assert_same, fingerprint, forget_day
from episodes_assets_tests.chaos.fleet import fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import RunEnd, run_days
from episodes_assets_tests.support.run_process import own_process
from episodes_assets_tests.support.system import System, day


def run(system: System, first: int, last: int | None = None) -> None:
    """Run a day or a range, and insist that it succeeds."""
    with own_process(run_days, system, day(first), day(last) if last else None) as process:
        end = process.result()
    assert end.success, end.message


def assert_clear(ends: Sequence[RunEnd]) -> None:
    """At least one run succeeds, and one that does not says so in a plain line."""
    assert any(end.success for end in ends), [end.message for end in ends]
    assert all(end.success or end.is_plain for end in ends), [end.message for end in ends]


@pytest.mark.slow
def test_two_runs_of_one_day_and_two_backfills_that_overlap(system: System, chaos: Chaos) -> None:
    system.generate(day(1), day(4), episodes=60)
    with fleet(system, 1):
        run(system, 1)
        run(system, 2, 4)
        calm = fingerprint(system)
        for _ in range(chaos.pick(short=1, long=25)):
            forget_day(system, day(4))
            with chaos.attack(Promise.TWO, "two runs of one day"):
                one = partial(run_days, system, day(4))
                assert_clear(in_processes(chaos.random, 0.5, one, one))
                assert_same(fingerprint(system), calm)
        for _ in range(chaos.pick(short=1, long=15)):
            for number in (2, 3, 4):
                forget_day(system, day(number))
            with chaos.attack(Promise.TWO, "two backfills that overlap"):
                ends = in_processes(
                    chaos.random,
                    0.5,
                    partial(run_days, system, day(2), day(3)),
                    partial(run_days, system, day(3), day(4)),
                )
                assert_clear(ends)
                if not ends[1].success:  # it came too early
                    run(system, 3, 4)
                assert_same(fingerprint(system), calm)
    assert deadlocks(system) == 0


@pytest.mark.slow
def test_a_day_is_replanned_while_workers_drain_it(
    system: System, chaos: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not chaos.is_long:
        pytest.skip("make chaos does")
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "100")
    system.generate(day(1), day(1), episodes=1_000)
    system.query("input", "CREATE TABLE all_episodes AS SELECT * FROM episodes")
    with fleet(system, 2):
        drops = ["epid % 3 <> 0", "epid % 3 <> 1"]
        calm = [calm_day(system, drop) for drop in drops]
        for number in range(15):
            new = number % 2
            forget_day(system, day(1))
            let_drop_be(system, drops[1 - new])
            system.plan(day(1))
            let_drop_be(system, drops[new])
            with chaos.attack(Promise.TWO, "a day is replanned from a refreshed drop while workers drain it"):
                ends = in_processes(
                    chaos.random,
                    1.0,
                    partial(run_days, system, day(1), None, ["job_outcomes"]),
                    partial(run_days, system, day(1), None, None, {"refresh": True, "reason": "r"}),
                )
                assert_clear(ends)
                assert ends[1].success, ends[1].message
                assert_same(without_files(fingerprint(system)), calm[new])
    assert deadlocks(system) == 0


def calm_day(system: System, drop: str) -> Fingerprint:
    """What the first day leaves when its drop has just these rows."""
    let_drop_be(system, drop)
    forget_day(system, day(1))
    run(system, 1)
    return without_files(fingerprint(system))


def let_drop_be(system: System, condition: str) -> None:
    system.query("input", "DELETE FROM episodes")
    system.query("input", f"INSERT INTO episodes SELECT * FROM all_episodes WHERE {condition}")


def without_files(found: Fingerprint) -> Fingerprint:
    """A refreshed day keeps the files of its older drops."""
    return {name: rows for name, rows in found.items() if name != "files"}

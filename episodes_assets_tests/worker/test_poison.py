"""Poison: whatever a job or an algorithm's module does, it fails alone, within its time, and is recovered."""

from pathlib import Path

import pytest

from episodes_assets.algorithms.declaration import Declaration, Metric
from episodes_assets.algorithms.registry import Registry
from episodes_assets.worker.compute import TimeLimits
from episodes_assets_tests.support.poisoned import FINDS_THEM
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

IDS = {
    90: "raises",
    91: "hangs",
    92: "eats_memory",
    93: "loses_columns",
    94: "misses_values",
    95: "dies",
    96: "imports_nothing",
    97: "ends_on_import",
    98: "hangs_on_import",
    100: "raises_its_own",
    101: "leaves",
    102: "says_no_text",
}
# Of these no job runs, whatever it is of.
ON_IMPORT = (96, 97, 98, 102)


@pytest.mark.slow
def test_each_poison_fails_alone_and_is_recovered_once_fixed(system: System, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FINDS_THEM)
    env = {
        "PYTHONPATH": str(tmp_path),
        "EPISODES_MAX_STARTS": "2",
        "EPISODES_RETRY_SECONDS": "0.05",
        "EPISODES_BATCH_TIMEOUT_SECONDS": "5",
        "EPISODES_JOB_TIMEOUT_SECONDS": "5",
        "EPISODES_COMPUTE_MEMORY_MB": "700",
    }
    every = (0, *IDS)
    system.insert_drop(day(1), [(1, a, "2018-02-01", "2018-02-01") for a in every])
    system.insert_drop(day(1), [(2, a, "2018-02-01", "2018-02-01") for a in every])
    system.insert_drop(day(1), [(3, a, "2018-02-13", "2018-02-13") for a in every])

    failed = system.cli("run", "2018-03-01", "--workers", "1", env=env)
    assert failed.returncode == 1, failed.stdout
    assert "jobs are held, among them epid" in failed.stderr
    assert "Traceback" not in failed.stderr
    states = {
        (epid, algorithm): (state, error, traceback)
        for epid, algorithm, state, error, traceback in system.query(
            "queue", "SELECT epid, algorithm_id, state, error, traceback FROM ledger.job_states"
        )
    }
    assert len(states) == 3 * len(every)
    held = {job for job, (state, _, _) in states.items() if state == "held"}
    assert held == {(3, a) for a in IDS} | {(e, a) for e in (1, 2) for a in ON_IMPORT}
    assert all(state == "succeeded" for job, (state, _, _) in states.items() if job not in held)
    for algorithm, (error, trace) in {
        90: ("OSError: poisoned", "in compute"),
        91: ("longer than 1.5 seconds", "ComputationTooLong"),
        92: ("MemoryError", "in compute"),
        93: ("loses_columns returned ['something']", "BadAlgorithm"),
        94: ("missing or infinite misses_values_count for 1 of 1 jobs", "MissingValue"),
        95: ("died", "ComputationDied"),
        96: ("imports_nothing does not import (ModuleNotFoundError", "a_library_that_nobody_installed"),
        97: ("ends_on_import does not import (it ends the process)", ""),
        98: ("hangs_on_import does not import (took longer than 5 seconds)", ""),
        100: ("OwnError: poisoned 7", "in compute"),
        101: ("SystemExit: poisoned", "in compute"),
        102: ("says_no_text does not import (RuntimeError: bad \ufffd ?)", "RuntimeError"),
    }.items():
        _, found, traceback = states[3, algorithm]
        assert error in found
        assert trace in traceback
    assert system.query("results", "SELECT FROM published.days") == []

    shown = system.cli("jobs", "status", "2018-03-01", env=env).stdout
    assert "held: 2018-03-01 epid 3 algorithm 90 after 2 starts: OSError: poisoned" in shown

    fixed = {**env, "FIXED": "1"}
    assert f"{len(held)} held jobs" in system.cli("jobs", "retry", "2018-03-01", env=fixed).stdout
    ran = system.cli("run", "2018-03-01", "--workers", "1", env=fixed)
    assert ran.returncode == 0, ran.stderr
    assert len(system.published()) == len(states)


def test_time_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def algorithm(number: int, name: str, seconds: float | None) -> Declaration:
        return Declaration(
            algorithm_id=number,
            name=name,
            version="1",
            description="",
            columns={"x": Metric.REAL},
            timeout_seconds=seconds,
        )

    known = {1: algorithm(1, "quick", None), 2: algorithm(2, "slow", 500)}
    registry = Registry(known, {}, (), {})
    monkeypatch.setattr("episodes_assets.worker.compute.get_registry", lambda: registry)
    limits = TimeLimits(batch=300, job=60, by_algorithm={"quick": 5})
    assert limits.of([1]) == 5
    assert limits.of([2]) == 500
    assert limits.of([9]) == 60
    assert limits.of([1, 1]) == 300
    assert limits.of([1, 2]) == 500
    assert TimeLimits(batch=300, job=60, by_algorithm={"slow": 7}).of([2]) == 7

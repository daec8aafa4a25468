"""Poison: whatever a job or an algorithm's module does, it fails alone, within its time, and is recovered."""

from pathlib import Path

import pytest

from episodes_assets import algorithms
from episodes_assets.algorithms import registry
from episodes_assets.algorithms.base import Algorithm, Metric
from episodes_assets.fleet.time_limits import TimeLimits
from episodes_assets_tests.system import System, day

POISON = Path(__file__).parent / "poison"
IDS = {
    90: "raises",
    91: "hangs",
    92: "eats_memory",
    93: "loses_columns",
    94: "misses_values",
    95: "dies",
    96: "imports_nothing",
}
FINDS_THEM = f"""
import episodes_assets.algorithms
episodes_assets.algorithms.__path__.append({str(POISON)!r})
"""


def test_each_poison_fails_alone_and_is_recovered_once_mended(system: System, tmp_path: Path) -> None:
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
    assert held == {(3, a) for a in IDS if a != 96} | {(e, 96) for e in (1, 2, 3)}
    assert all(state == "succeeded" for job, (state, _, _) in states.items() if job not in held)
    for algorithm, (error, trace) in {
        90: ("OSError: poisoned", "in compute"),
        91: ("longer than 1.5 seconds", "ComputationTooLong"),
        92: ("MemoryError", "in compute"),
        93: ("loses_columns returned ['something']", "BadAlgorithm"),
        94: ("missing or infinite misses_values_count for 1 of 1 jobs", "MissingValue"),
        95: ("died", "ComputationDied"),
        96: ("imports_nothing does not import (ModuleNotFoundError", "a_library_that_nobody_installed"),
    }.items():
        _, found, traceback = states[3, algorithm]
        assert error in found
        assert trace in traceback
    assert system.query("results", "SELECT FROM published.days") == []

    shown = system.cli("jobs", "status", "2018-03-01", env=env).stdout
    assert "held: 2018-03-01 epid 3 algorithm 90 after 2 starts: OSError: poisoned" in shown

    mended = {**env, "MENDED": "1"}
    assert "9 held jobs" in system.cli("jobs", "retry", "2018-03-01", env=mended).stdout
    ran = system.cli("run", "2018-03-01", "--workers", "1", env=mended)
    assert ran.returncode == 0, ran.stderr
    assert len(system.published()) == len(states)


@pytest.mark.parametrize("text", ["import nothing_of_the_kind", "def ("])
def test_a_module_that_does_not_import_keeps_its_id_and_hurts_no_other(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_written.py").write_text(f"{text}\nALGORITHM = Algorithm(algorithm_id=97)\n")
    (tmp_path / "nameless.py").write_text(text)
    monkeypatch.setattr("episodes_assets.algorithms.__path__", [*algorithms.__path__, str(tmp_path)])
    found = {each.algorithm_id: each for each in registry.discover(["reach", "half_written", "nameless"])}
    assert set(found) == {0, 97}
    assert found[0].import_error is None
    assert found[97].import_error
    monkeypatch.setattr(registry, "BY_ID", found)
    registry.require_available(0)
    with pytest.raises(registry.AlgorithmUnavailable, match="half_written does not import"):
        registry.require_available(97)
    with pytest.raises(registry.AlgorithmUnavailable, match="knows no algorithm 7"):
        registry.require_available(7)


def test_time_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def algorithm(number: int, name: str, seconds: float | None) -> Algorithm:
        return Algorithm(number, name, "1", "", {"x": Metric.REAL}, lambda _, j: j, timeout_seconds=seconds)

    known = {1: algorithm(1, "quick", None), 2: algorithm(2, "slow", 500)}
    monkeypatch.setattr("episodes_assets.fleet.time_limits.BY_ID", known)
    limits = TimeLimits(batch=300, job=60, by_algorithm={"quick": 5})
    assert limits.of([1]) == 5
    assert limits.of([2]) == 500
    assert limits.of([9]) == 60
    assert limits.of([1, 1]) == 300
    assert limits.of([1, 2]) == 500
    assert TimeLimits(batch=300, job=60, by_algorithm={"slow": 7}).of([2]) == 7

"""What counts against a job, and what does not: errors of any text, outages, algorithms a worker lacks."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgqueuer.errors import RetryRequested

from episodes_assets.algorithms.registry import AlgorithmUnavailable, Registry, get_registry
from episodes_assets.ledger.claims import GuardedLedger
from episodes_assets.ledger.dispatch import ChunkMessage, fan_out_day
from episodes_assets.ledger.workers import Activity, WorkerName, send_heartbeat
from episodes_assets.postgres.connect import AsyncConnection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.worker import main, outage
from episodes_assets.worker.chunk import ChunkRules, ChunkRunner, JobsWereHeld
from episodes_assets.worker.compute import JobWindows, MicroBatch, TimeLimits, import_algorithm
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.poisoned import FINDS_THEM
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.workers import plan, run_async, states, worker

pytestmark = pytest.mark.process
MAX_STARTS = 4


@pytest.fixture(scope="module")
def planned(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("blame") / "home", patch) as made,
    ):
        plan(made, 1, 2)
        yield made


@pytest.fixture
def fleet(planned: System) -> System:
    """A system with two jobs in one chunk, of which none was ever begun."""
    for statement in (
        "DELETE FROM ledger.job_attempts",
        "DELETE FROM ledger.outcomes",
        "DELETE FROM ledger.batches",
        "DELETE FROM ledger.workers",
        "UPDATE ledger.jobs SET algorithm_id = 0",
        "UPDATE ledger.chunks SET succeeded = 0, held = 0, starts = 0, claim = NULL, claimed_at = NULL",
        "DELETE FROM pgqueuer",
    ):
        planned.query("queue", statement)
    with connect(planned.dsn(Purpose.QUEUE), autocommit=True) as queue:
        fan_out_day(queue, day(1))
    return planned


class Computes:
    """In place of the process that computes: raises what it is told to, else gives each job an outcome."""

    incarnation = 0

    def __init__(self, *raises: Exception, on_import: Exception | None = None) -> None:
        self.raises = list(raises)
        self.on_import = on_import
        self.computed = 0

    async def run(self, _limit: float, function: object, *arguments: Any) -> MicroBatch | None:
        if function is import_algorithm:
            if self.on_import is not None:
                raise self.on_import
            return None
        return await self.compute(arguments[-1])

    async def compute(self, windows: JobWindows) -> MicroBatch:
        self.computed += 1
        if self.raises:
            raise self.raises.pop(0)
        many = len(windows.epid)
        return MicroBatch(
            {"covered_from": [None] * many, "metrics": ["{}"] * many, "algorithm_version": ["1"] * many}, {}
        )


def rules_of(system: System, worker: str = "host-1-7", **others: Any) -> ChunkRules:
    facts = {"max_starts": MAX_STARTS, "retry_seconds": 0.0} | others
    return ChunkRules(worker, system.settings.lake, TimeLimits(10, 10), **facts)


async def run_chunk(system: System, process: Any, rules: ChunkRules | None = None) -> str:
    """Work the chunk once in a session of its own; how its message ends."""
    (plan_id,) = system.query("queue", "SELECT max(plan_id) FROM ledger.plans")[0]
    async with await psycopg.AsyncConnection.connect(
        system.dsn(Purpose.WORKER), autocommit=True
    ) as connection:
        ledger = GuardedLedger(connection, "development", silence_seconds=10)
        runner = ChunkRunner(
            ledger, process, rules or rules_of(system), Activity(), asyncio.Event(), asyncio.Event()
        )
        try:
            await runner.run(ChunkMessage(plan_id, 0), attempts=0)
        except RetryRequested:
            return "again"
        except JobsWereHeld:
            return "held"
    return "done"


def attempts(system: System) -> list[tuple[int, bool]]:
    """Of each job that has failed its starts, and whether it is held."""
    return system.query("queue", "SELECT starts, is_held FROM ledger.job_attempts ORDER BY position")


@pytest.fixture
def no_log() -> Iterator[None]:
    """Nothing is logged: a process of pytest-xdist cannot hand on a captured log with a lone surrogate."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("no_log")
def test_an_error_that_no_database_can_hold_is_recorded_as_far_as_it_can(fleet: System) -> None:
    bad = ValueError("bad \0 \ud800")
    process = Computes(bad, bad, bad)
    assert asyncio.run(run_chunk(fleet, process)) == "again"
    assert attempts(fleet) == [(1, False), (1, False)]
    errors = fleet.query("queue", "SELECT DISTINCT error, traceback FROM ledger.job_attempts")
    assert {error for error, _ in errors} == {"ValueError: bad \ufffd ?"}
    assert all("ValueError: bad \ufffd ?" in traceback for _, traceback in errors)
    assert asyncio.run(run_chunk(fleet, process)) == "done"


async def work_until_done(system: System, process: Any, rules: ChunkRules | None = None) -> None:
    """A worker's sessions, made anew when they are lost, until all jobs are done."""
    stopping = asyncio.Event()
    sessions = main.Sessions(
        system.dsn(Purpose.WORKER), process, rules or rules_of(system), Activity(), "development", 30
    )
    working = asyncio.create_task(sessions.work(stopping))
    try:
        async with asyncio.timeout(60):
            while system.query("queue", "SELECT jobs FROM ledger.backlog") != [(0,)]:
                await asyncio.sleep(0.05)
    finally:
        stopping.set()
        await working


class LosesItsSession(Computes):
    """Of which the connection with the ledger is cut while it computes, so many times."""

    def __init__(self, system: System, times: int) -> None:
        super().__init__()
        self.system = system
        self.times = times

    async def compute(self, windows: JobWindows) -> MicroBatch:
        if self.computed < self.times:
            cut = self.system.query(
                "queue",
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'episodes ledger'",
            )
            assert cut == [(True,)]
        return await super().compute(windows)


@pytest.mark.long
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_session_that_is_lost_while_jobs_compute_counts_against_none(
    fleet: System, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(main, "FIRST_PAUSE_SECONDS", 0.01)
    if jobs == 1:
        fleet.finish_jobs("epid = 1")
    process = LosesItsSession(fleet, MAX_STARTS)
    asyncio.run(work_until_done(fleet, process))
    assert process.computed == MAX_STARTS + 1
    assert fleet.query("queue", "SELECT DISTINCT state FROM ledger.job_states") == [("succeeded",)]
    # Just the start that has succeeded is counted.
    assert attempts(fleet) == ([(1, False)] if jobs == 1 else [])
    assert fleet.query("queue", "SELECT starts, held FROM ledger.chunks") == [(0 if jobs == 1 else 1, 0)]


class WaitsToBeAsked(Computes):
    """Computes until the ledger was asked something meanwhile."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    async def compute(self, windows: JobWindows) -> MicroBatch:
        deadline = time.monotonic() + 30
        asked = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT'"
        )
        while self.system.query("queue", asked) == [(0,)]:
            assert time.monotonic() < deadline, "it was not asked"
            await asyncio.sleep(0.02)
        return await super().compute(windows)


def test_the_ledgers_connection_is_not_idle_while_jobs_compute(
    fleet: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "IDLE_SECONDS", 0.02)
    assert asyncio.run(run_chunk(fleet, WaitsToBeAsked(fleet))) == "done"


def test_jobs_of_an_algorithm_that_a_release_does_not_know_are_left_to_others(
    fleet: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.query("queue", "UPDATE ledger.jobs SET algorithm_id = 1 WHERE epid = 2")
    known = get_registry()
    older = Registry({0: known.by_id[0]}, {}, (), known.modules)
    with monkeypatch.context() as patch:
        patch.setattr("episodes_assets.worker.chunk.get_registry", lambda: older)
        for _ in range(MAX_STARTS + 1):
            assert asyncio.run(run_chunk(fleet, Computes())) == "again"
    assert "1 jobs are left to workers of another release: this one knows no algorithm 1" in caplog.text
    assert states(fleet) == {1: "succeeded", 2: "waiting"}
    assert attempts(fleet) == [(1, False)]  # of the one that has succeeded
    assert asyncio.run(run_chunk(fleet, Computes())) == "done"
    assert states(fleet) == {1: "succeeded", 2: "succeeded"}


def alive(system: System, *names: str) -> None:
    """Let workers have sent a heartbeat just now."""

    async def beat(connection: AsyncConnection) -> None:
        for name in names:
            host, _, pid = name.rpartition("-")
            await send_heartbeat(connection, WorkerName(host=host, pid=int(pid)), Activity())

    run_async(system, beat)


@pytest.mark.parametrize(
    ("others", "turns"),
    [
        # Alone, it counts each time.
        ([], ["host-1-7"] * 4),
        # Two workers of one host, and two hosts: where both have failed, it counts.
        (["host-1-8"], ["host-1-7", "host-1-7", "host-1-8", "host-1-7", "host-1-7", "host-1-8", "host-1-7"]),
        (["host-2-1"], ["host-1-7", "host-2-1", "host-1-7", "host-2-1", "host-1-7"]),
    ],
)
def test_a_module_that_imports_nowhere_ends_with_held_jobs(
    fleet: System, others: list[str], turns: list[str]
) -> None:
    alive(fleet, "host-1-7", *others)
    for number, name in enumerate(turns, 1):
        process = Computes(on_import=AlgorithmUnavailable("reach does not import (why)"))
        ends = asyncio.run(run_chunk(fleet, process, rules_of(fleet, name)))
        assert ends == ("held" if number == len(turns) else "again")
    assert attempts(fleet) == [(MAX_STARTS, True)] * 2
    (error,) = fleet.query("queue", "SELECT DISTINCT error FROM ledger.job_attempts")[0]
    assert error == f"AlgorithmUnavailable: reach does not import (why); on {turns[-1]}"


def test_one_host_on_which_a_module_does_not_import_holds_nothing(fleet: System) -> None:
    alive(fleet, "host-1-7", "host-1-8", "host-2-1")
    for _ in range(MAX_STARTS):
        for name in ("host-1-7", "host-1-8"):
            process = Computes(on_import=AlgorithmUnavailable("reach does not import (why)"))
            assert asyncio.run(run_chunk(fleet, process, rules_of(fleet, name))) == "again"
    assert attempts(fleet) == [(0, False)] * 2
    assert asyncio.run(run_chunk(fleet, Computes(), rules_of(fleet, "host-2-1"))) == "done"


@pytest.mark.slow
def test_a_day_is_worked_that_one_of_two_workers_cannot_do_alone(system: System, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FINDS_THEM)
    plan(system, *range(1, 9))
    system.query("queue", "UPDATE ledger.jobs SET algorithm_id = 96 WHERE epid > 4")
    with worker(system) as older:
        assert older.stdout is not None
        while "left to workers of another release: this one knows no algorithm 96" not in (
            older.stdout.readline()
        ):
            assert older.poll() is None
        with worker(system, PYTHONPATH=str(tmp_path), FIXED="1"):
            eventually(lambda: set(states(system).values()) == {"succeeded"})
    assert system.query("queue", "SELECT FROM ledger.job_attempts WHERE starts > 0 OR is_held") == []

"""A worker's sessions: made anew when they fail, given up when the queue is no longer its own."""

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import psycopg
import pytest
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from pgqueuer.types import QueueEntrypoint, QueueManagerId
from psycopg.conninfo import conninfo_to_dict

from episodes_assets.cli.supervisor import episodes_argv, worker_environment
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.ledger.claims import GuardedLedger
from episodes_assets.ledger.dispatch import ENTRYPOINT, ChunkMessage, fan_out_day
from episodes_assets.ledger.messages import OwnMessages
from episodes_assets.ledger.workers import Activity
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import to_asyncpg_url
from episodes_assets.worker.chunk import ChunkRules, ChunkRunner
from episodes_assets.worker.compute import MicroBatch, TimeLimits, import_algorithm
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process


@contextmanager
def ready_worker(system: System) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A worker and the lines it prints, from the one that says it is ready."""
    process = subprocess.Popen(
        episodes_argv("worker"),
        env={**os.environ, **worker_environment(system.settings, system.dsns)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    ready = threading.Event()

    def drain() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "is ready" in line:
                ready.set()

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        assert ready.wait(60), "".join(lines)
        yield process, lines
    finally:
        process.terminate()
        process.wait(60)
        reader.join()


def plan(system: System, number: int) -> None:
    system.insert_drop(day(number), [(number, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(number))


def fan_out(system: System, number: int) -> None:
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        fan_out_day(queue, day(number))


def hand_out(system: System, number: int) -> None:
    plan(system, number)
    fan_out(system, number)


def wait_until_done(system: System) -> None:
    done = threading.Event()
    for _ in range(600):
        if system.query("queue", "SELECT jobs FROM ledger.backlog") == [(0,)]:
            return
        done.wait(0.1)
    raise AssertionError("the jobs were not done")


@pytest.mark.long
def test_a_worker_connects_again_when_either_connection_is_cut(system: System) -> None:
    hand_out(system, 1)
    with ready_worker(system) as (process, lines):
        wait_until_done(system)
        for number, connection in ((2, "ledger"), (3, "messages")):
            cut = system.query(
                "queue",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = %s",
                [f"episodes {connection}"],
            )
            assert cut == [(True,)]
            hand_out(system, number)
            wait_until_done(system)
        assert process.poll() is None
    assert any("lost the queue" in line and "connecting again in" in line for line in lines)
    assert any("the queue is back" in line for line in lines)


@pytest.mark.slow
def test_a_running_worker_leaves_a_queue_of_a_newer_release(system: System) -> None:
    """When that is finished, and not while the worker's release may go on beside it."""
    newer = "UPDATE episodes_schema_version SET version_num = 'queue_9999', oldest_beside = version_num"
    finished = "UPDATE episodes_schema_version SET oldest_beside = 'queue_9999'"
    with ready_worker(system) as (process, lines):
        system.query("queue", newer)
        hand_out(system, 1)
        wait_until_done(system)
        plan(system, 2)
        system.query("queue", finished)
        fan_out(system, 2)
        assert process.wait(60) == 1
    last = lines[-1]
    assert last.startswith("error: "), "".join(lines)
    assert "upgrade this process" in " ".join(lines)


def test_a_message_that_went_to_another_is_left_alone(system: System) -> None:
    async def scenario() -> None:
        first = await asyncpg.connect(system.dsn(Purpose.WORKER))
        second = await asyncpg.connect(system.dsn(Purpose.WORKER))
        late, quick = OwnMessages.from_asyncpg_connection(first), OwnMessages.from_asyncpg_connection(second)
        await late.enqueue([ENTRYPOINT], [b"{}"], [0])

        async def pick(queries: Queries, silence: timedelta) -> list[Job]:
            return await queries.dequeue(
                batch_size=1,
                entrypoints={QueueEntrypoint(ENTRYPOINT): EntrypointExecutionParameter(0)},
                queue_manager_id=QueueManagerId(uuid4()),
                global_concurrency_limit=None,
                heartbeat_timeout=silence,
            )

        (picked_late,) = await pick(late, timedelta(seconds=30))
        (picked,) = await pick(quick, timedelta(seconds=-1))
        assert picked.id == picked_late.id

        async def messages() -> list[tuple[str, int]]:
            rows = await first.fetch("SELECT status::text, attempts FROM pgqueuer")
            return [(row["status"], row["attempts"]) for row in rows]

        await late.log_jobs([(picked_late, "successful", None)])
        await late.log_jobs([(picked_late, "failed", None)])
        await late.retry_job(picked_late, timedelta(0), None)
        assert await messages() == [("picked", 0)]
        await quick.log_jobs([(picked, "successful", None)])
        assert await messages() == []
        await first.close()
        await second.close()

    asyncio.run(scenario())


@pytest.mark.long
def test_a_silent_ledger_is_given_up(system: System) -> None:
    """Another session holds the lock that the statement waits for; to the worker that is silence."""
    hand_out(system, 1)
    plan_id = system.query("queue", "SELECT max(plan_id) FROM ledger.plans")[0][0]
    rules = ChunkRules("w", system.dsn(Purpose.INPUT), TimeLimits(1, 1), max_starts=1, retry_seconds=0)

    async def scenario() -> None:
        over = asyncio.Event()
        async with await psycopg.AsyncConnection.connect(
            system.dsn(Purpose.WORKER), autocommit=True
        ) as connection:
            ledger = GuardedLedger(connection, "development", silence_seconds=0.3)
            runner = ChunkRunner(ledger, None, rules, Activity(), asyncio.Event(), over)  # type: ignore[arg-type]
            with pytest.raises(RetryRequested, match="the queue was silent"):
                await runner.run(ChunkMessage(plan_id, 0), attempts=0)
            assert over.is_set()
            assert connection.closed

    with psycopg.connect(system.admin["queue"]) as locker:
        locker.execute("LOCK TABLE ledger.chunks IN ACCESS EXCLUSIVE MODE")
        asyncio.run(asyncio.wait_for(scenario(), 10))


@pytest.mark.slow
def test_a_worker_says_whom_it_waits_for(system: System) -> None:
    plan(system, 1)
    with ready_worker(system) as (_, lines), psycopg.connect(system.admin["queue"]) as locker:
        locker.execute("LOCK TABLE ledger.jobs IN ACCESS EXCLUSIVE MODE")
        fan_out(system, 1)
        told = f"waiting for a lock that is held by pid {locker.info.backend_pid} (role postgres"
        deadline = time.monotonic() + 30
        while not any(told in line for line in lines):
            assert time.monotonic() < deadline, "".join(lines)
            time.sleep(0.05)


@pytest.mark.long
def test_a_right_that_was_forgotten_is_named_and_the_claim_given_back(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that trying again would fix."""
    hand_out(system, 1)
    plan_id = system.query("queue", "SELECT max(plan_id) FROM ledger.plans")[0][0]
    rules = ChunkRules("w", system.dsn(Purpose.INPUT), TimeLimits(1, 1), max_starts=1, retry_seconds=0)
    role = conninfo_to_dict(system.dsn(Purpose.WORKER))["user"]
    system.query("queue", f"REVOKE INSERT ON ledger.job_attempts FROM {role}")

    async def scenario() -> None:
        async with await psycopg.AsyncConnection.connect(
            system.dsn(Purpose.WORKER), autocommit=True
        ) as connection:
            ledger = GuardedLedger(connection, "development", silence_seconds=5)
            process: Any = Fails(ValueError("bad"))
            runner = ChunkRunner(ledger, process, rules, Activity(), asyncio.Event(), asyncio.Event())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await runner.run(ChunkMessage(plan_id, 0), attempts=0)

    asyncio.run(scenario())
    assert (
        "the database refuses this role (the queue: permission denied for table job_attempts)" in caplog.text
    )
    assert "Traceback" not in caplog.text
    assert system.query("queue", "SELECT claim FROM ledger.chunks") == [(None,)]


def test_an_unforeseen_error_is_logged_and_the_claim_given_back(
    system: System, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_out(system, 1)
    plan_id = system.query("queue", "SELECT max(plan_id) FROM ledger.plans")[0][0]
    rules = ChunkRules("w", system.dsn(Purpose.INPUT), TimeLimits(1, 1), max_starts=1, retry_seconds=0)

    def fail(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr("episodes_assets.worker.chunk.split_unavailable", fail)

    async def scenario() -> None:
        async with await psycopg.AsyncConnection.connect(
            system.dsn(Purpose.WORKER), autocommit=True
        ) as connection:
            ledger = GuardedLedger(connection, "development", silence_seconds=5)
            process: Any = Fails(ValueError("unused"))
            runner = ChunkRunner(ledger, process, rules, Activity(), asyncio.Event(), asyncio.Event())
            with pytest.raises(ValueError, match="a defect"):
                await runner.run(ChunkMessage(plan_id, 0), attempts=0)

    asyncio.run(scenario())
    assert "an unforeseen error" in caplog.text
    assert "Traceback" in caplog.text
    assert system.query("queue", "SELECT claim FROM ledger.chunks") == [(None,)]


def test_outcomes_that_the_ledger_refuses_are_no_fault_of_their_jobs(system: System) -> None:
    hand_out(system, 1)
    plan_id = system.query("queue", "SELECT max(plan_id) FROM ledger.plans")[0][0]
    rules = ChunkRules("w", system.dsn(Purpose.INPUT), TimeLimits(1, 1), max_starts=1, retry_seconds=0)
    role = conninfo_to_dict(system.dsn(Purpose.WORKER))["user"]
    system.query("queue", f"REVOKE INSERT ON ledger.outcomes FROM {role}")

    class Computes:
        incarnation = 0

        async def run(self, *_: object) -> MicroBatch:
            return MicroBatch({"covered_from": [None], "metrics": ["{}"], "algorithm_version": ["1"]}, {})

    async def scenario() -> None:
        async with await psycopg.AsyncConnection.connect(
            system.dsn(Purpose.WORKER), autocommit=True
        ) as connection:
            ledger = GuardedLedger(connection, "development", silence_seconds=5)
            process: Any = Computes()
            runner = ChunkRunner(ledger, process, rules, Activity(), asyncio.Event(), asyncio.Event())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await runner.run(ChunkMessage(plan_id, 0), attempts=0)

    asyncio.run(scenario())
    assert system.query("queue", "SELECT starts FROM ledger.job_attempts WHERE starts > 0 OR is_held") == []
    assert system.query("queue", "SELECT claim, held, starts FROM ledger.chunks") == [(None, 0, 0)]


class Fails:
    """In place of the process that computes: it imports algorithms, and raises when it is to compute."""

    incarnation = 0

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def run(self, _limit: float, function: object, *_: object) -> None:
        if function is not import_algorithm:
            raise self.error


@pytest.mark.long
def test_a_long_outage_makes_nobody_wait_for_longer_after_it(system: System) -> None:
    """PgQueuer never forgets an attempt, so after a night without input there are thousands."""
    hand_out(system, 1)
    plan_id = system.query("queue", "SELECT max(plan_id) FROM ledger.plans")[0][0]
    rules = ChunkRules("w", system.dsn(Purpose.INPUT), TimeLimits(1, 1), max_starts=4, retry_seconds=2)

    async def scenario() -> None:
        async with await psycopg.AsyncConnection.connect(
            system.dsn(Purpose.WORKER), autocommit=True
        ) as connection:
            ledger = GuardedLedger(connection, "development", silence_seconds=5)

            async def pause(error: Exception, attempts: int) -> float:
                process: Any = Fails(error)
                runner = ChunkRunner(ledger, process, rules, Activity(), asyncio.Event(), asyncio.Event())
                with pytest.raises(RetryRequested) as requested:
                    await runner.run(ChunkMessage(plan_id, 0), attempts)
                return requested.value.delay.total_seconds()

            away = DatabaseUnreachable("the input is away")
            assert [await pause(away, attempts) for attempts in (0, 1, 5, 2000)] == [2, 4, 30, 30]
            # A job that fails then waits as its own starts say.
            assert [await pause(ValueError("bad"), 2000) for _ in range(3)] == [2, 4, 8]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "spell",
    [
        "host={host} user={user} password={password} dbname={dbname}",
        (
            "host={host} user={user} password={password} dbname={dbname} connect_timeout=5 keepalives_idle=3"
            " application_name='a b'"
        ),
        "postgresql://{user}:{password}@/{dbname}?host={host}&options=-c%20statement_timeout%3D5s",
    ],
)
def test_messages_come_by_whatever_dsn_the_ledger_is_reached_by(system: System, spell: str) -> None:
    dsn = spell.format(**conninfo_to_dict(system.dsn(Purpose.WORKER)))

    async def reach() -> str:
        connection = await asyncpg.connect(to_asyncpg_url(dsn))
        try:
            return str(await connection.fetchval("SELECT current_database()"))
        finally:
            await connection.close()

    assert asyncio.run(reach()) == system.query("queue", "SELECT current_database()")[0][0]

"""The fleet on real parts: failures alone, claims fenced, starts counted, killed and stopped workers."""

import os
import signal
import subprocess
import uuid
from typing import Any

import pytest

from episodes_assets.cli.supervisor import episodes_argv, worker_environment
from episodes_assets.ledger import claims
from episodes_assets.ledger.claims import ClaimLost
from episodes_assets.ledger.dispatch import ChunkMessage
from episodes_assets.ledger.held import retry_held_jobs
from episodes_assets.postgres.connect import AsyncConnection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.workers import plan, run_async, states, worker

pytestmark = pytest.mark.process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_worker_stops_cleanly(system: System, number: signal.Signals) -> None:
    plan(system, *range(1, 50))
    process = subprocess.Popen(
        episodes_argv("worker"),
        env={**os.environ, **worker_environment(system.settings, system.dsns)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    while "is ready" not in process.stdout.readline():
        pass
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "has stopped" in output
    assert "running" not in states(system).values()


def chunk_of(system: System) -> ChunkMessage:
    return ChunkMessage(system.query("queue", "SELECT max(plan_id) FROM ledger.plans")[0][0], 0)


def test_outcomes_are_written_only_under_the_current_claim(system: System) -> None:
    plan(system, 1, 2)

    async def scenario(connection: AsyncConnection) -> None:
        slow = await claims.claim_chunk(connection, chunk_of(system), "slow")
        assert slow is not None
        await claims.count_start(connection, slow, slow.jobs)
        # PgQueuer hears nothing of the slow worker and gives its message to another.
        quick = await claims.claim_chunk(connection, chunk_of(system), "quick")
        assert quick is not None
        assert quick.starts == 1
        outcomes: dict[str, list[Any]] = {
            "covered_from": [None, None],
            "metrics": ['{"views": 1}', '{"views": 2}'],
            "algorithm_version": ["1", "1"],
        }
        took = claims.Took(2.0, {0: 1.5})
        failure = claims.JobFailure("late", "")
        for late in (
            claims.write_outcomes(connection, slow, slow.jobs, outcomes, "slow", took),
            claims.count_start(connection, slow, slow.jobs),
            claims.count_start(connection, slow, slow.jobs[:1]),
            claims.record_failures(connection, slow, slow.jobs[:1], failure, 1),
        ):
            with pytest.raises(ClaimLost):
                await late
        await claims.uncount_start(connection, slow, slow.jobs)
        await claims.release_claim(connection, slow)
        assert set(states(system).values()) == {"running"}
        await claims.write_outcomes(connection, quick, quick.jobs, outcomes, "quick", took)
        with pytest.raises(ClaimLost):
            await claims.write_outcomes(connection, quick, quick.jobs, outcomes, "quick", took)
        assert await claims.claim_chunk(connection, chunk_of(system), "third") is None

    run_async(system, scenario)
    assert system.query("queue", "SELECT DISTINCT worker FROM ledger.outcomes") == [("quick",)]
    told = system.query("queue", "SELECT worker, jobs, seconds, algorithm_seconds FROM ledger.batches")
    assert told == [("quick", 2, 2.0, [1.5])]


@pytest.mark.long
def test_a_superseded_plan_is_claimed_by_nobody(system: System) -> None:
    plan(system, 1)
    old = chunk_of(system)
    system.query("queue", "UPDATE ledger.plans SET superseded_at = now()")

    async def scenario(connection: AsyncConnection) -> None:
        assert await claims.claim_chunk(connection, old, "w") is None

    run_async(system, scenario)


@pytest.mark.long
def test_a_job_that_kills_its_worker_is_held_after_its_starts(system: System) -> None:
    plan(system, 1, 2)
    # As a worker leaves it that is killed with its whole machine, time and again.
    system.query(
        "queue",
        "INSERT INTO ledger.job_attempts (plan_id, position, starts)"
        " SELECT plan_id, position, CASE epid WHEN 1 THEN 4 ELSE 1 END FROM ledger.jobs",
    )
    system.query("queue", "UPDATE ledger.chunks SET starts = 2, claim = %s", [uuid.uuid4()])
    with worker(system):
        eventually(lambda: states(system) == {1: "held", 2: "succeeded"})
    error = system.query("queue", "SELECT error FROM ledger.job_states WHERE epid = 1")
    assert error == [("started 4 times without an end: it kills its worker",)]


@pytest.mark.long
def test_retrying_a_day_without_held_jobs_changes_nothing(system: System) -> None:
    plan(system, 1)
    before = system.fingerprint()
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        assert retry_held_jobs(queue, day(1)) == 0
    assert system.fingerprint() == before


def test_a_worker_of_another_environment_refuses(system: System) -> None:
    refused = system.cli("worker", env={"EPISODES_ENVIRONMENT": "production"})
    assert refused.returncode == 1
    assert "belongs to 'development', this process to 'production'" in refused.stderr

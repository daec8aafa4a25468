"""Cancelling a day: nothing more is written, everything is said, and a retry goes on where it was."""

from typing import Any

import dagster as dg
import pytest

from episodes_assets.accounts.identity import operating_system_user
from episodes_assets.cli import jobs
from episodes_assets.errors import DayNotPlanned, JobNotHeld, NothingToCancel, ReasonMissing
from episodes_assets.ledger import claims, held, plans
from episodes_assets.ledger.claims import ClaimLost
from episodes_assets.ledger.dispatch import ChunkMessage, fan_out_day
from episodes_assets.ledger.held import cancel_day, retry_held_job, retry_held_jobs
from episodes_assets.ledger.progress import backlog, read_progress
from episodes_assets.postgres.connect import AsyncConnection, Connection
from episodes_assets_tests.support.plans import record
from episodes_assets_tests.support.runs import run
from episodes_assets_tests.support.system import System, day, failure
from episodes_assets_tests.support.workers import run_async, states


def cancel(queue: Connection, reason: str = "a wrong drop") -> int:
    return cancel_day(queue, day(1), reason=reason, cancelled_by="ana")


def messages(system: System) -> int:
    return int(system.query("queue", "SELECT count(*) FROM pgqueuer")[0][0])


@pytest.mark.long
def test_what_is_finished_stays_and_the_rest_is_held(system: System, queue: Connection) -> None:
    record(queue, *range(1, 11), chunk_jobs=3)
    fan_out_day(queue, day(1))
    system.finish_jobs("epid < 5")
    system.hold_jobs("epid = 5")
    before = system.query("queue", "SELECT * FROM ledger.outcomes ORDER BY position")
    assert cancel(queue, "a wrong\n drop") == 5
    progress = read_progress(queue)[0]
    assert (progress.waiting, progress.running, progress.succeeded, progress.held) == (0, 0, 4, 6)
    assert system.query("queue", "SELECT * FROM ledger.outcomes ORDER BY position") == before
    errors = dict(system.query("queue", "SELECT epid, error FROM ledger.job_states WHERE state = 'held'"))
    assert errors.pop(5) == "x"
    assert set(errors) == {6, 7, 8, 9, 10}
    (error,) = set(errors.values())
    now = system.query("queue", "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')")[0][0]
    assert error.startswith(f"cancelled by ana at {now} ")
    assert error.endswith(" UTC: a wrong drop")
    assert backlog(queue) == 0
    # The message of the chunk that had ended before is PgQueuer's business.
    assert messages(system) == 1
    assert fan_out_day(queue, day(1)).messages == 0
    assert "6 jobs are held" in failure(system.materialize(day(1), select=["job_outcomes"]))

    # Planning the same jobs again is no way around it.
    record(queue, *range(1, 11), chunk_jobs=3)
    assert read_progress(queue)[0].held == 6
    assert retry_held_jobs(queue, day(1)) == 6
    assert set(states(system).values()) == {"succeeded", "waiting"}
    assert backlog(queue) == 6


def test_a_worker_of_a_cancelled_day_writes_nothing_more(system: System, queue: Connection) -> None:
    plan, _ = record(queue, 1, 2)
    fan_out_day(queue, day(1))
    message = ChunkMessage(plan.plan_id, 0)
    queue.execute("UPDATE pgqueuer SET status = 'picked'")

    async def scenario(connection: AsyncConnection) -> None:
        slow = await claims.claim_chunk(connection, message, "slow")
        assert slow is not None
        await claims.count_start(connection, slow, slow.jobs)
        await claims.count_start(connection, slow, slow.jobs[:1])
        failed = claims.JobFailure("it failed once", "with a traceback")
        await claims.record_failures(connection, slow, slow.jobs[:1], failed, 4)
        assert cancel(queue) == 2
        assert messages(system) == 0
        assert await claims.claim_chunk(connection, message, "another") is None
        outcomes: dict[str, list[Any]] = {
            "covered_from": [None, None],
            "metrics": ['{"views": 1}', '{"views": 2}'],
            "algorithm_version": ["1", "1"],
        }
        cancelled = system.fingerprint()
        for released in (False, True):
            if released:
                assert retry_held_jobs(queue, day(1)) == 2
                assert messages(system) == 1
                cancelled = system.fingerprint()
            for late in (
                claims.write_outcomes(connection, slow, slow.jobs, outcomes, "slow", claims.Took(1, {})),
                claims.count_start(connection, slow, slow.jobs),
                claims.count_start(connection, slow, slow.jobs[:1]),
                claims.record_failures(connection, slow, slow.jobs[:1], failed, 1),
            ):
                with pytest.raises(ClaimLost):
                    await late
            await claims.uncount_start(connection, slow, slow.jobs)
            await claims.release_claim(connection, slow)
            assert system.fingerprint() == cancelled
        quick = await claims.claim_chunk(connection, message, "quick")
        assert quick is not None
        assert [(job.epid, job.starts) for job in quick.jobs] == [(1, 0), (2, 0)]
        assert quick.starts == 0

    run_async(system, scenario)


def test_what_cannot_be_cancelled_or_retried(system: System, queue: Connection) -> None:
    with pytest.raises(DayNotPlanned):
        cancel(queue)
    record(queue, 1, 2, 3)
    for reason, name in ((" ", "ana"), ("why", "\t")):
        with pytest.raises(ReasonMissing):
            cancel_day(queue, day(1), reason=reason, cancelled_by=name)
    system.finish_jobs("epid = 1")
    system.hold_jobs("epid > 1")
    before = system.fingerprint()
    with pytest.raises(NothingToCancel, match="no job of 2018-03-01 waits or runs"):
        cancel(queue)
    for epid, algorithm in ((1, 0), (2, 1), (9, 0)):
        with pytest.raises(JobNotHeld):
            retry_held_job(queue, day(1), epid, algorithm)
    assert system.fingerprint() == before


@pytest.mark.long
def test_one_job_is_retried_by_itself(system: System, queue: Connection) -> None:
    record(queue, 1, 2, 3, 4, chunk_jobs=2)
    fan_out_day(queue, day(1))
    cancel(queue)
    retry_held_job(queue, day(1), 3, 0)
    assert states(system) == {1: "held", 2: "held", 3: "waiting", 4: "held"}
    assert system.query("queue", "SELECT held FROM ledger.chunks ORDER BY chunk") == [(2,), (1,)]
    assert messages(system) == 1


def read_error(queue: Connection) -> str:
    """Why the first held job of day 1 is held."""
    plan = plans.require_plan(queue, day(1))
    (job,) = held.read_held(queue, [plan.plan_id], each=1)
    return job.error


def test_from_the_command_line_and_from_the_launchpad(
    system: System, queue: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    record(queue, 1, 2)
    jobs.cancel(str(day(1)), reason="a wrong drop", by="ana")
    assert "2 unfinished jobs of 2018-03-01 are held" in capsys.readouterr().out
    said = read_error(queue)
    assert f"cancelled by {operating_system_user()}, as typed: ana at " in said
    retry_held_jobs(queue, day(1))
    with dg.DagsterInstance.get() as instance:
        assert run(instance, "cancel_jobs", {"reason": "why"}) == ""
        assert "no job of 2018-03-01 waits" in run(instance, "cancel_jobs", {"reason": "why"})
    assert f"cancelled by {operating_system_user()} at " in read_error(queue)

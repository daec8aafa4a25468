"""A day is cancelled again and again while it is worked; in the end it comes out as in calm."""

import pytest

from episodes_assets.errors import NothingToCancel
from episodes_assets.ledger import plans
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.held import cancel_day, retry_held_jobs
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.chaos.at_once import deadlocks
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import assert_same, fingerprint, published_bytes
from episodes_assets_tests.chaos.fleet import fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.publishing import publish
from episodes_assets_tests.support.system import System, day

WORKERS = 2


@pytest.mark.slow
def test_a_day_cancelled_while_it_is_worked(
    system: System, chaos: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "50")
    system.generate(day(1), day(1), episodes=chaos.pick(short=300, long=6_000))
    with fleet(system, WORKERS) as workers, connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        system.plan(day(1))
        finish(system, queue)
        calm, calm_rows = fingerprint(system), published_bytes(system, day(1))
        for table in ("days", "history", "results"):
            system.query("results", f"DELETE FROM published.{table}")
        system.plan(day(1), rework=True)
        jobs = plans.require_plan(queue, day(1)).jobs
        with chaos.attack(Promise.ORDER, "a day cancelled while workers compute its jobs") as attack:
            attack.times = 0
            for _ in range(chaos.pick(short=4, long=100)):
                attack.times += cancel_at_work(system, queue, chaos, jobs)
            retry_held_jobs(queue, day(1))
            finish(system, queue)
            assert_same(fingerprint(system), calm)
            assert published_bytes(system, day(1)) == calm_rows
            assert system.query("queue", "SELECT count(*) FROM ledger.outcomes") == [(jobs,)]
        assert attack.times > 0
        assert "Traceback" not in workers.log
    assert deadlocks(system) == 0


def cancel_at_work(system: System, queue: Connection, chaos: Chaos, jobs: int) -> int:
    """Cancel the day once some more of its jobs are finished; how often that was: not when all are."""
    fan_out_day(queue, day(1))
    retry_held_jobs(queue, day(1))
    succeeded = read_progress(queue)[0].succeeded
    enough = succeeded + chaos.random.randrange(max((jobs - succeeded) // 4, 1))
    eventually(lambda: is_at_work(queue, enough))
    try:
        cancelled = cancel_day(queue, day(1), reason="to see what happens", cancelled_by="chaos")
    except NothingToCancel:
        return 0
    outcomes = system.query("queue", "SELECT count(*) FROM ledger.outcomes")
    progress = read_progress(queue)[0]
    assert (progress.waiting, progress.running, progress.held) == (0, 0, cancelled)
    assert system.query("queue", "SELECT count(*) FROM ledger.outcomes") == outcomes
    return 1


def is_at_work(queue: Connection, enough: int) -> bool:
    progress = read_progress(queue)[0]
    return not progress.is_open or (progress.running > 0 and progress.succeeded >= enough)


def finish(system: System, queue: Connection) -> None:
    """Let the fleet finish the day, and publish it."""

    def is_finished() -> bool:
        fan_out_day(queue, day(1))
        return read_progress(queue)[0].is_done

    eventually(is_finished)
    publish(system)

"""Signs of life: a worker says what it does, and neither it nor its end waits for a queue that is stuck."""

import asyncio
import datetime as dt
import time
from collections.abc import Callable

import psycopg
import pytest

from episodes_assets.cli.jobs import status
from episodes_assets.ledger.workers import (
    Activity,
    Work,
    Worker,
    WorkerName,
    count_alive,
    count_by_release,
    forget_dead_workers,
    read_older_workers,
    read_workers,
    send_heartbeat,
)
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.worker import main as worker_main
from episodes_assets.worker.main import Presence
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.workers import plan, worker

pytestmark = pytest.mark.process

NAME = WorkerName(host="here", pid=7, release="1.2")


def workers(system: System, gone_for: dt.timedelta = dt.timedelta(0)) -> list[Worker]:
    with connect(system.dsn(Purpose.QUEUE)) as queue:
        return read_workers(queue, gone_for)


def say(system: System, activity: Activity, *, name: WorkerName = NAME, is_last: bool = False) -> None:
    async def main() -> None:
        dsn = system.dsn(Purpose.WORKER)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await send_heartbeat(connection, name, activity, is_last=is_last)

    asyncio.run(main())


@pytest.mark.slow
def test_a_worker_says_what_it_does_and_when_it_has_stopped(system: System) -> None:
    plan(system, *range(1, 40))
    with worker(system) as process:
        eventually(lambda: [each.pid for each in workers(system)] == [process.pid])
        eventually(lambda: system.query("queue", "SELECT jobs FROM ledger.backlog") == [(0,)])
    assert workers(system) == []
    (gone,) = workers(system, dt.timedelta(minutes=5))
    assert (gone.is_alive, gone.finished, gone.day) == (False, 39, None)
    assert gone.stopped_at is not None
    done_by = system.query("queue", "SELECT worker, sum(jobs) FROM ledger.batches GROUP BY worker")
    assert done_by == [(gone.name, 39)]


@pytest.mark.long
def test_what_it_computes_is_told_with_its_day(system: System) -> None:
    plan(system, 1)
    ((plan_id,),) = system.query("queue", "SELECT plan_id FROM ledger.plans")
    activity = Activity(finished=5)
    with activity.working(Work(plan_id, chunk=0, jobs=3)):
        say(system, activity)
        (told,) = workers(system)
        assert (told.name, told.host, told.pid, told.release) == ("here-7", "here", 7, "1.2")
        assert (told.day, told.plan_id, told.chunk, told.jobs) == (day(1), plan_id, 0, 3)
        assert told.working_since is not None
    say(system, activity)
    (told,) = workers(system)
    assert (told.day, told.working_since, told.finished) == (None, None, 5)
    with activity.working(Work(plan_id + 1, chunk=0, jobs=3)):  # superseded and deleted meanwhile
        say(system, activity)
    assert [(told.day, told.chunk) for told in workers(system)] == [(None, 0)]


def test_workers_that_fell_silent_are_not_alive_and_are_forgotten(system: System) -> None:
    say(system, Activity())
    say(system, Activity(), name=WorkerName("there", 8, "1.2"))
    system.query("queue", "UPDATE ledger.workers SET seen_at = now() - interval '16 seconds' WHERE pid = 7")
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        assert count_alive(queue) == 1
        assert [(each.pid, each.is_alive) for each in read_workers(queue, dt.timedelta(minutes=1))] == [
            (8, True),
            (7, False),
        ]
        assert forget_dead_workers(queue) == 0
        system.query("queue", "UPDATE ledger.workers SET seen_at = now() - interval '2 days' WHERE pid = 7")
        assert forget_dead_workers(queue) == 1
    # A process that has its name again, as in a container, begins anew.
    say(system, Activity(), is_last=True)
    assert [each.pid for each in workers(system)] == [8]
    say(system, Activity())
    assert {each.pid for each in workers(system)} == {7, 8}


def test_a_row_from_the_future_is_no_sign_of_life(system: System) -> None:
    """A clock was put back, or a worker wrote it: it would block `episodes db finish` until then."""
    say(system, Activity())
    system.query("queue", "UPDATE ledger.workers SET seen_at = now() + interval '30 seconds', knows = NULL")
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        assert len(read_older_workers(queue, "queue_9999")) == count_alive(queue) == 1
        assert forget_dead_workers(queue) == 0
        system.query("queue", "UPDATE ledger.workers SET seen_at = now() + interval '1 year'")
        assert read_older_workers(queue, "queue_9999") == []
        assert count_alive(queue) == 0
        assert count_by_release(queue) == {}
        assert read_workers(queue, dt.timedelta(minutes=5)) == []
        assert forget_dead_workers(queue) == 1


def keep_for(system: System, meanwhile: Callable[[], None], environment: str = "development") -> float:
    """Keep signs of life; the seconds that their end took."""

    async def main() -> float:
        stopped = asyncio.Event()
        kept = Presence(system.dsn(Purpose.WORKER), environment, NAME, Activity())
        task = asyncio.create_task(kept.keep(stopped))
        await asyncio.to_thread(meanwhile)
        began = time.monotonic()
        await worker_main.end_presence(task, stopped)
        assert task.done()
        return time.monotonic() - began

    return asyncio.run(main())


def test_a_stuck_queue_delays_the_end_by_a_moment_only(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_main, "GOODBYE_SECONDS", 0.2)

    def waits_for_a_lock() -> bool:
        return system.query("queue", "SELECT 1 FROM pg_locks WHERE NOT granted") != []

    with psycopg.connect(system.admin["queue"]) as locker:
        locker.execute("LOCK TABLE ledger.workers IN ACCESS EXCLUSIVE MODE")
        assert keep_for(system, lambda: eventually(waits_for_a_lock)) < 5


def end_sessions(system: System) -> list[tuple[bool]]:
    """End the sessions by which signs of life are given; whether each could be ended."""
    return system.query(
        "queue",
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'episodes presence'",
    )


def test_signs_of_life_come_again_after_the_connection_was_cut(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_main, "BEAT_SECONDS", 0.05)

    def cut() -> None:
        eventually(lambda: len(workers(system)) == 1)
        assert end_sessions(system) == [(True,)]
        system.query("queue", "DELETE FROM ledger.workers")
        eventually(lambda: len(workers(system)) == 1)

    keep_for(system, cut)


def test_a_goodbye_is_said_though_the_session_has_ended(system: System) -> None:
    def end_the_session() -> None:
        eventually(lambda: len(workers(system)) == 1)
        assert end_sessions(system) == [(True,)]

    keep_for(system, end_the_session)
    assert workers(system) == []
    (gone,) = workers(system, dt.timedelta(minutes=5))
    assert gone.stopped_at is not None


def test_nothing_is_said_in_a_queue_of_another_environment(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_main, "BEAT_SECONDS", 0.05)
    connected = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'episodes presence'"
    )
    keep_for(system, lambda: eventually(lambda: system.query("queue", connected) != []), "production")
    assert workers(system, dt.timedelta(minutes=1)) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger.workers",
        "DELETE FROM ledger.batches",
        "UPDATE ledger.batches SET seconds = 0",
    ],
)
def test_a_worker_deletes_and_rewrites_none_of_it(system: System, statement: str) -> None:
    with (
        psycopg.connect(system.dsn(Purpose.WORKER)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


@pytest.mark.long
def test_the_status_names_who_works_and_how_fast(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    plan(system, 1, 2)
    ((plan_id,),) = system.query("queue", "SELECT plan_id FROM ledger.plans")
    activity = Activity(finished=7)
    say(system, Activity(), name=WorkerName("there", 8, "1.2"))
    with activity.working(Work(plan_id, chunk=0, jobs=2)):
        say(system, activity)
    status(str(day(1)), traceback=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 jobs are with the fleet and not finished; 2 workers live, 0.0 jobs/s" in shown
    assert "worker here-7 (release 1.2): 2 jobs of 2018-03-01; 7 jobs finished" in shown
    assert "worker there-8 (release 1.2): waits for work; 0 jobs finished" in shown

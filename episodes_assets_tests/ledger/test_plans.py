"""Plans: the same one changes nothing, another supersedes; progress adds up."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from episodes_assets.errors import DayNotPlanned, LakeMissing
from episodes_assets.ledger import plans
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.held import retry_held_jobs
from episodes_assets.ledger.plans import Plan
from episodes_assets.ledger.progress import backlog, read_progress
from episodes_assets.ledger.verify import describe_damage
from episodes_assets.planning.jobs import plan_checksum
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.plans import NO_DIGEST, jobs_of, record
from episodes_assets_tests.support.system import System, day


def test_the_same_plan_keeps_what_was_done_of_it(system: System, queue: Connection) -> None:
    plan, changed = record(queue, 1, 2, 3)
    assert changed
    fan_out_day(queue, day(1))
    system.finish_jobs("epid = 1")
    before = system.fingerprint()
    again, changed = record(queue, 1, 2, 3, chunk_jobs=1)
    assert (again.plan_id, changed) == (plan.plan_id, False)
    assert system.fingerprint() == before


def test_another_plan_supersedes_jobs_outcomes_and_messages(system: System, queue: Connection) -> None:
    old, _ = record(queue, 1, 2)
    fan_out_day(queue, day(1))
    new, changed = record(queue, 2, 3)
    assert changed
    assert new.plan_id != old.plan_id
    assert [job[0] for job in system.jobs(day(1))] == [2, 3]
    assert system.query("queue", "SELECT count(*) FROM ledger.jobs") == [(2,)]
    assert system.query("queue", "SELECT count(*) FROM ledger.chunks") == [(1,)]
    superseded = "SELECT superseded_at IS NOT NULL FROM ledger.plans ORDER BY plan_id"
    assert system.query("queue", superseded) == [(True,), (False,)]
    assert not read_progress(queue, [day(1)])[0].is_fanned_out


def test_messages_of_held_jobs_go_with_their_plan(system: System, queue: Connection) -> None:
    record(queue, 1, 2, 3, chunk_jobs=1)
    fan_out_day(queue, day(1))
    system.hold_jobs("epid IN (1, 2)")
    # As PgQueuer leaves them whose chunks ended with held jobs.
    system.query(
        "queue",
        "UPDATE pgqueuer SET status = 'failed'"
        " WHERE id IN (SELECT message_id FROM ledger.chunks WHERE held > 0)",
    )
    messages = "SELECT status::text, count(*) FROM pgqueuer GROUP BY status ORDER BY status::text"
    assert system.query("queue", messages) == [("failed", 2), ("queued", 1)]
    _, changed = record(queue, 1, 2, 3, chunk_jobs=1, rework=True)
    assert changed
    assert system.query("queue", messages) == [("queued", 1)]


def test_numbers_begin_above_what_is_known_elsewhere(queue: Connection) -> None:
    first, _ = record(queue, 1, above=7)
    assert first.plan_id == 8
    assert record(queue, 1, 2, above=3)[0].plan_id == 9
    assert record(queue, 1, 3, above=9)[0].plan_id == 10
    assert record(queue, 1, 3, above=99)[0].plan_id == 10  # the same plan keeps its own


def test_plannings_at_once_are_given_no_number_twice(system: System) -> None:
    def plan(number: int) -> int:
        jobs = jobs_of(number)
        with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
            plan, _ = plans.record_plan(
                queue,
                day(number),
                jobs,
                checksum=plan_checksum(jobs),
                snapshot_id="s",
                code_version="1",
                chunk_jobs=1,
                viewings=NO_DIGEST,
                above=50,
            )
        return plan.plan_id

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(plan, range(1, 17)))
    assert len(set(numbers)) == 16
    assert min(numbers) > 50


def test_reworking_the_same_plan_forgets_what_was_done_of_it(system: System, queue: Connection) -> None:
    old, _ = record(queue, 1, 2)
    system.finish_jobs()
    new, changed = record(queue, 1, 2, rework=True)
    assert changed
    assert (new.checksum, new.plan_id > old.plan_id) == (old.checksum, True)
    assert read_progress(queue)[0].waiting == 2


def test_progress_counts_each_state(system: System, queue: Connection) -> None:
    record(queue, *range(10), chunk_jobs=3)
    system.finish_jobs("epid < 4")
    system.hold_jobs("epid = 4")
    progress = read_progress(queue)[0]
    counts = (progress.waiting, progress.running, progress.succeeded, progress.held)
    assert counts == (5, 0, 4, 1)
    assert progress.is_open
    assert backlog(queue) == 0  # not handed out yet
    fan_out_day(queue, day(1))
    assert backlog(queue) == 5


def test_a_day_without_jobs_is_done_at_once(queue: Connection) -> None:
    record(queue)
    assert fan_out_day(queue, day(1)).messages == 0
    progress = read_progress(queue, [day(1)])[0]
    assert progress.is_done
    assert not progress.is_open


def test_fanning_out_twice_sends_nothing_twice_and_finds_what_was_lost(
    system: System, queue: Connection
) -> None:
    record(queue, 1, 2, 3)
    assert fan_out_day(queue, day(1)).messages == 2
    assert fan_out_day(queue, day(1)).messages == 0
    system.query("queue", "DELETE FROM pgqueuer WHERE id = (SELECT min(id) FROM pgqueuer)")
    assert fan_out_day(queue, day(1)).messages == 1
    assert system.query("queue", "SELECT count(*) FROM pgqueuer") == [(2,)]


def test_jobs_that_catch_up_yield_to_the_others(system: System, queue: Connection) -> None:
    jobs = jobs_of(1, 2, 3, 4)
    jobs.loc[jobs["epid"] == 1, "window_start"] -= pd.Timedelta(days=400)
    plans.record_plan(
        queue,
        day(1),
        jobs,
        checksum="c",
        snapshot_id="s",
        code_version="1",
        chunk_jobs=2,
        viewings=NO_DIGEST,
    )
    fan_out_day(queue, day(1))
    order = system.query(
        "queue",
        "SELECT epid FROM pgqueuer JOIN ledger.chunks ON message_id = pgqueuer.id"
        " JOIN ledger.job_states USING (plan_id, chunk)"
        " ORDER BY pgqueuer.priority DESC, pgqueuer.id, position",
    )
    assert [epid for (epid,) in order] == [2, 3, 4, 1]


def test_an_unplanned_day_says_what_to_do(queue: Connection) -> None:
    with pytest.raises(DayNotPlanned, match="materialise episode_jobs of 2018-03-02"):
        fan_out_day(queue, day(2))


def test_the_jobs_of_a_chunk_are_found_by_index(system: System, queue: Connection) -> None:
    """At full size a worker must not scan a day to claim a chunk of it."""
    record(queue, *range(20_000), chunk_jobs=100)
    system.query("queue", "ANALYZE ledger.jobs")
    plan = system.query(
        "queue",
        "EXPLAIN SELECT FROM ledger.jobs JOIN ledger.chunks USING (plan_id)"
        " WHERE plan_id = (SELECT max(plan_id) FROM ledger.plans) AND chunk = 7"
        " AND position >= first_position AND position < first_position + chunks.jobs",
    )
    text = "\n".join(line for (line,) in plan)
    assert "Index" in text
    assert "Seq Scan on jobs" not in text


def test_who_waited_for_a_plan_that_was_replaced_works_on_the_new_one(
    system: System, queue: Connection
) -> None:
    """Retrying, fanning out and waiving ask for the same lock."""
    old, _ = record(queue, 1, 2)
    system.hold_jobs("epid = 1")
    with ThreadPoolExecutor(1) as pool, connect(system.dsn(Purpose.QUEUE), autocommit=True) as planning:
        with planning.transaction():
            new, _ = record(planning, 2, 3)
            # As a worker would hold it, unseen by others yet.
            planning.execute(
                "INSERT INTO ledger.job_attempts (plan_id, position, starts, is_held, error)"
                " VALUES (%s, 0, 4, true, 'x')",
                [new.plan_id],
            )
            planning.execute("UPDATE ledger.chunks SET held = 1 WHERE plan_id = %s", [new.plan_id])
            retrying = pool.submit(retry_held_jobs, queue, day(1))
            while system.query("queue", "SELECT pid FROM pg_locks WHERE NOT granted") == []:
                assert not retrying.done()
        assert retrying.result() == 1
    assert system.query("queue", "SELECT plan_id FROM ledger.job_attempts") == []
    fanned_out = "SELECT plan_id FROM ledger.plans WHERE fanned_out_at IS NOT NULL"
    assert system.query("queue", fanned_out) == [(new.plan_id,)] != [(old.plan_id,)]


def test_a_day_that_the_lake_lacks_keeps_its_plan_and_gets_no_new_one(
    system: System, queue: Connection
) -> None:
    """A plan without a version of the viewings is one that no worker can compute."""
    plan, _ = record(queue, 1, 2)
    before = system.fingerprint()
    with pytest.raises(LakeMissing, match="no viewings of 2018-03-01 to compute its jobs from"):
        record(queue, 2, 3, viewings=None)
    assert system.fingerprint() == before
    assert record(queue, 1, 2, viewings=None) == (plan, False)


def test_damage_is_looked_for_when_no_other_planning_can_come_in_between(
    system: System, queue: Connection
) -> None:
    """So of two repairs at once the second one looks at what the first one has made."""
    plan, _ = record(queue, 1, 2)
    jobs = jobs_of(1, 2)
    seen: list[int | None] = []

    def find_damage(found: Plan | None) -> str:
        seen.append(found.plan_id if found else None)
        return "jobs" if found and found.plan_id == plan.plan_id else ""

    def repair() -> bool:
        with connect(system.dsn(Purpose.QUEUE), autocommit=True) as connection:
            _, changed = plans.record_plan(
                connection,
                day(1),
                jobs,
                checksum=plan_checksum(jobs),
                snapshot_id="s",
                code_version="1",
                chunk_jobs=2,
                viewings=NO_DIGEST,
                find_damage=find_damage,
            )
        return changed

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lambda _: repair(), range(2))) == [False, True]
    assert seen == [plan.plan_id, plan.plan_id + 1]
    assert system.query("queue", "SELECT count(*) FROM ledger.plans") == [(2,)]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM ledger.job_attempts WHERE position = 1",
        "INSERT INTO ledger.job_attempts (plan_id, position, is_held, error) VALUES (1, 2, true, 'x')",
        "UPDATE ledger.job_attempts SET position = 2 WHERE position = 1",  # of another chunk
        "UPDATE ledger.chunks SET held = held + 1 WHERE chunk = 1",
    ],
)
def test_held_jobs_that_are_counted_otherwise_are_damage(
    system: System, queue: Connection, damage: str
) -> None:
    plan, _ = record(queue, 1, 2, 3)
    system.finish_jobs("epid = 1")
    system.hold_jobs("epid = 2")
    assert describe_damage(queue, system.dsn(Purpose.QUEUE), plan) == ""
    system.query("queue", damage)
    assert describe_damage(queue, system.dsn(Purpose.QUEUE), plan) == "held jobs"


def test_a_plan_that_something_else_superseded_leaves_no_work_behind(
    system: System, queue: Connection
) -> None:
    record(queue, 1, 2)
    system.finish_jobs()
    system.query("queue", "UPDATE ledger.plans SET superseded_at = now()")
    record(queue, 1, 2)
    assert system.query("queue", "SELECT count(*) FROM ledger.jobs") == [(2,)]
    assert system.query("queue", "SELECT count(*) FROM ledger.outcomes") == [(0,)]

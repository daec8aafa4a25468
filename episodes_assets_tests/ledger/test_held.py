"""Reading held and waived jobs: which of them, in which order, and how much of them."""

import pytest

from episodes_assets.ledger import held, plans
from episodes_assets.ledger.held import TRACEBACK_CHARACTERS, HeldJob, read_held, read_held_first
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.plans import NO_DIGEST, jobs_of
from episodes_assets_tests.support.system import System, day


def epids(jobs: list[HeldJob]) -> list[int]:
    return [job.epid for job in jobs]


@pytest.fixture
def two_plans(system: System, queue: Connection) -> list[int]:
    """Of each of two days four jobs are held, the first two of them waived."""
    found = []
    for number in (1, 2):
        jobs = jobs_of(*range(10 * number, 10 * number + 4))
        plan, _ = plans.record_plan(
            queue,
            day(number),
            jobs,
            checksum="c",
            snapshot_id="s",
            code_version="1",
            chunk_jobs=2,
            viewings=NO_DIGEST,
        )
        found.append(plan.plan_id)
    system.hold_jobs("position < 2")
    for number in (1, 2):
        held.waive_held_jobs(queue, day(number), reason="why", decided_by="who")
    system.hold_jobs("position >= 2")
    return found


def test_jobs_of_each_plan_are_read_in_the_order_of_the_plans(
    queue: Connection, two_plans: list[int]
) -> None:
    first, second = two_plans
    assert epids(read_held(queue, [second, first], each=3)) == [20, 21, 22, 10, 11, 12]
    assert epids(read_held(queue, two_plans, each=3, most=4)) == [10, 11, 12, 20]
    assert epids(read_held(queue, [first], each=3, after=1)) == [12, 13]
    assert epids(read_held(queue, two_plans, each=1, is_waived=False)) == [12, 22]
    assert epids(read_held(queue, two_plans, each=9, is_waived=True)) == [10, 11, 20, 21]


def test_held_jobs_come_before_waived_ones(queue: Connection, two_plans: list[int]) -> None:
    assert epids(read_held_first(queue, two_plans, 3)) == [12, 13, 22]
    assert epids(read_held_first(queue, two_plans, 6)) == [12, 13, 22, 23, 10, 11]
    assert [job.is_waived for job in read_held_first(queue, two_plans, 6)] == [False] * 4 + [True] * 2


def test_those_of_a_superseded_plan_are_left_out(
    system: System, queue: Connection, two_plans: list[int]
) -> None:
    system.query("queue", "UPDATE ledger.plans SET superseded_at = now() WHERE plan_id = %s", two_plans[:1])
    assert epids(read_held(queue, two_plans, each=1)) == [20]


def test_of_a_long_traceback_the_end_is_read(system: System, queue: Connection, two_plans: list[int]) -> None:
    system.query(
        "queue", "UPDATE ledger.job_attempts SET traceback = %s WHERE position = 0", ["x" * 9_000 + "the end"]
    )
    long, short = read_held(queue, two_plans[:1], each=2)
    assert (long.is_cut, short.is_cut) == (True, False)
    assert long.traceback is not None
    assert long.traceback.endswith("the end")
    assert len(long.traceback) == TRACEBACK_CHARACTERS

"""Each way in which a row can be there or not be there, brought about for real and explained."""

import asyncio
import datetime as dt
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from episodes_assets.algorithms.registry import Registry, get_registry
from episodes_assets.checks.lake import late_viewings_are_published
from episodes_assets.days import FIRST_DAY, ONE_DAY
from episodes_assets.explanation.causes import Cause
from episodes_assets.explanation.explaining import explain
from episodes_assets.lake.opening import open_lake
from episodes_assets.ledger import claims
from episodes_assets.ledger.claims import Claim, JobFailure
from episodes_assets.ledger.dispatch import ChunkMessage, fan_out_day
from episodes_assets.ledger.held import cancel_day, retry_held_job, retry_held_jobs, waive_held_jobs
from episodes_assets.postgres.connect import AsyncConnection, Connection, connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results.recompute import read_outdated
from episodes_assets_tests.support.explained import PREMIERE, START, explained, records_of, said, watch
from episodes_assets_tests.support.older_release import become_older
from episodes_assets_tests.support.publishing import publish
from episodes_assets_tests.support.system import System, day, failure
from episodes_assets_tests.support.workers import run_async

Test = TypeVar("Test", bound=Callable[..., None])


def shows(*causes: Cause) -> Callable[[Test], Test]:
    """Says which causes a test brings about."""

    def mark(test: Test) -> Test:
        test.causes = causes  # type: ignore[attr-defined]
        return test

    return mark


def test_each_cause_is_brought_about_by_a_test() -> None:
    tests = [each for each in globals().values() if hasattr(each, "causes")]
    assert {cause for test in tests for cause in test.causes} == {*Cause}


@pytest.mark.long
@shows(Cause.PUBLISHED)
def test_a_published_row_says_where_all_of_it_comes_from(worked: System) -> None:
    found = explained(worked, day(3), 1)
    assert (found.cause, found.algorithm, found.hint) == (Cause.PUBLISHED, "reach", "")
    assert found.answer.startswith("it is in the results, published 20")
    drop = worked.drops.require(day(3))
    tracking = worked.drops.require(day(2))
    assert said(found, "catalogue").startswith(f"drop {drop.snapshot_id}, taken 20")
    assert "version 1 of the lake's episodes; 30 rows, 5 refused" in said(found, "catalogue")
    assert "accepted: a title; premiere 2018-02-01, start 2018-02-20" in said(found, "catalogue")
    assert said(found, "tracked") == (
        f"since {day(2)}, with which the history begins, by that day's drop {tracking.snapshot_id}"
    )
    assert said(found, "due").splitlines() == [
        "window from 2018-02-20 on (the start date): begun",
        "viewed on the day",
        "not newly tracked by the day",
    ]
    ((plan_id, uid),) = worked.query(
        "queue", "SELECT plan_id, plan_uid FROM ledger.plans WHERE day = %s", [day(3)]
    )
    plan = f"plan {plan_id} ({uid.hex[:8]})"
    assert said(found, "plan").startswith(f"{plan}: 3 jobs, planned 20")
    assert f"from drop {drop.snapshot_id} and version" in said(found, "plan")
    assert "window 2018-02-20 to 2018-03-03; position 0 in chunk 0 of 3 jobs" in said(found, "job")
    assert "1 start with others of its chunk, 0 alone; last claimed by" in said(found, "job")
    assert (
        said(found, "viewings")
        .splitlines()[0]
        .startswith("of 2018-02-20 to 2018-03-03, 6 went in, on 3 days; version")
    )
    assert said(found, "viewings").splitlines()[1] == "2018-03-01: 2, 2018-03-02: 1, 2018-03-03: 3"
    assert " for 3 jobs together" in said(found, "outcome")
    assert "views 6, viewers 1, seconds_watched 360, completed_views 6; viewings since 2018-03-01" in said(
        found, "outcome"
    )
    assert f"3 rows of {plan}, drop {drop.snapshot_id}, version" in said(found, "results")
    assert said(found, "outcome").splitlines()[1].split(";")[0] in said(found, "results")
    assert (said(found, "earlier"), said(found, "repairs")) == ("", "")


@shows(Cause.PUBLISHED, Cause.NOT_VIEWED, Cause.WINDOW_NOT_BEGUN)
def test_due_or_not(worked: System) -> None:
    newly = explained(worked, day(2), 3)
    assert newly.cause is Cause.PUBLISHED
    assert said(newly, "due").splitlines()[0] == (
        "window from 2018-02-01 on (the premiere, since the episode was not tracked before): begun"
    )
    assert "newly tracked by the day" in said(newly, "due")
    assert "newly tracked by this very day" in said(newly, "tracked")
    later = explained(worked, day(3), 3)
    assert later.cause is Cause.NOT_VIEWED
    assert later.answer == (
        "it was not due: nobody viewed the episode on the day, and it is not newly tracked"
    )
    assert said(later, "job") == "the plan has no such job"
    announced = explained(worked, day(2), 2)
    assert announced.cause is Cause.WINDOW_NOT_BEGUN
    assert announced.answer == "its window begins on 2018-03-03, after the day"
    assert "not as of this day" in said(announced, "tracked")
    assert explained(worked, day(3), 2).cause is Cause.PUBLISHED


@shows(Cause.VIEWED_LATE)
def test_viewings_that_arrived_late_are_told_with_the_command_of_the_check(worked: System) -> None:
    late = explained(worked, day(3), 101)
    assert (late.cause, late.answer) == (
        Cause.VIEWED_LATE,
        "it was not due when the day was planned: the lake has got 3 viewings of it on the day since then",
    )
    assert "not viewed on the day by then; 3 viewings came later" in said(late, "due").splitlines()
    assert said(late, "viewings").startswith("of 2018-02-20 to 2018-03-03, 0 are there, on 0 days; version")
    with connect_to_read(worked.dsn(Purpose.RESULTS_READER), Database.RESULTS) as results:
        outdated = read_outdated(results, worked.viewings, day(5))
    verdict = late_viewings_are_published(outdated)
    command = "`episodes run 2018-03-03 --rework`"
    assert command in verdict.message
    assert command in late.hint


@pytest.mark.slow
def test_a_day_that_is_planned_anew_has_what_arrived_late(system: System) -> None:
    for number in (1, 2):
        system.insert_drop(day(number), [(1, 0, PREMIERE, START)])
        watch(system, day(number), 7)
    system.plan(day(1), day(2))
    assert explained(system, day(2), 1).cause is Cause.NOT_VIEWED
    watch(system, day(2), 1)
    assert explained(system, day(2), 1).cause is Cause.NOT_VIEWED
    system.take_viewings(day(2), day(2))
    assert explained(system, day(2), 1).cause is Cause.VIEWED_LATE
    system.plan(day(2), rework=True)
    assert explained(system, day(2), 1).cause is Cause.NOT_HANDED_OUT


@shows(Cause.QUARANTINED, Cause.NOT_ASKED_FOR, Cause.NOT_IN_DROP, Cause.NEVER_SEEN)
def test_what_the_catalogue_has(worked: System) -> None:
    for epid, algorithm_id, rules in (
        (4, 0, "duplicate_with_other_dates"),
        (-7, 0, "epid_negative"),
        (8, 99, "algorithm_id_unknown"),
    ):
        refused = explained(worked, day(3), epid, algorithm_id)
        assert (refused.cause, refused.answer) == (
            Cause.QUARANTINED,
            f"validation refused its row: {rules}",
        )
        assert f"refused: {rules}: a title; premiere 2018-02-01" in said(refused, "catalogue")
    twin = explained(worked, day(2), 5)
    assert twin.cause is Cause.PUBLISHED
    assert "refused: duplicate (an equal row was accepted): a title" in said(twin, "catalogue")
    other = explained(worked, day(3), 1, 2)
    assert (other.cause, other.answer) == (
        Cause.NOT_ASKED_FOR,
        "the day's drop has the episode and does not ask for retention",
    )
    assert "no such row; the episode's ask for reach, momentum" in said(other, "catalogue")
    dropped = explained(worked, day(3), 6)
    assert (dropped.cause, dropped.answer) == (
        Cause.NOT_IN_DROP,
        "the day's drop does not have the episode, and that of 2018-03-02 did",
    )
    never = explained(worked, day(3), 777, None)
    assert (never.cause, never.algorithm) == (Cause.NEVER_SEEN, "")
    assert said(never, "tracked") == "never tracked"


def test_without_an_algorithm_each_on_record_is_explained(worked: System) -> None:
    found = explain(records_of(worked, day(3), 1))
    assert [(each.algorithm, each.cause) for each in found] == [
        ("reach", Cause.PUBLISHED),
        ("momentum", Cause.PUBLISHED),
    ]
    assert [each.algorithm_id for each in explain(records_of(worked, day(3), 8))] == [99]


@shows(
    Cause.BEFORE_FIRST_DAY,
    Cause.DAY_NOT_OVER,
    Cause.BEFORE_HISTORY,
    Cause.DAY_NOT_TAKEN,
    Cause.DROP_REFUSED,
    Cause.DAY_NOT_PLANNED,
)
def test_days_that_are_not_planned(worked: System) -> None:
    today = dt.datetime.now(dt.UTC).date()
    causes = {
        FIRST_DAY - ONE_DAY: Cause.BEFORE_FIRST_DAY,
        today + ONE_DAY: Cause.DAY_NOT_OVER,
        day(1): Cause.BEFORE_HISTORY,
        day(4): Cause.DAY_NOT_PLANNED,
        day(5): Cause.DROP_REFUSED,
        day(6): Cause.DAY_NOT_TAKEN,
    }
    assert {of: explained(worked, of, 1).cause for of in causes} == causes
    assert explained(worked, day(1), 1).answer == "the tracked history begins with 2018-03-02"
    assert explained(worked, day(5), 1).answer == (
        "2 of 3 rows of the day's drop were refused, so nothing is planned from it"
    )
    assert explained(worked, day(6), 1).hint == "run `episodes run 2018-03-06`"
    assert said(explained(worked, day(6), 1), "catalogue") == "the lake has no drop of 2018-03-06"
    assert "accepted: a title" in said(explained(worked, day(4), 1), "catalogue")


def claimed(system: System, plan_id: int, then: Callable[[AsyncConnection, Claim], Awaitable[Any]]) -> None:
    """Claim the plan's only chunk as a worker does, and do something with it."""

    async def work(connection: AsyncConnection) -> None:
        claim = await claims.claim_chunk(connection, ChunkMessage(plan_id, 0), "worker-1")
        assert claim is not None
        await then(connection, claim)

    run_async(system, work)


@pytest.mark.slow
@shows(
    Cause.NOT_HANDED_OUT,
    Cause.WAITING,
    Cause.RUNNING,
    Cause.RETRYING,
    Cause.HELD,
    Cause.CANCELLED,
    Cause.WAIVED,
    Cause.NOT_PUBLISHED_YET,
    Cause.PUBLISHED_WITHOUT,
    Cause.ROW_MISSING,
    Cause.WRITTEN_BY_SOMETHING_ELSE,
    Cause.PUBLISHED_FROM_OLDER_PLAN,
    Cause.PUBLISHED_FROM_UNKNOWN_PLAN,
    Cause.PLAN_BEFORE_LAKE,
    Cause.VIEWINGS_GONE,
    Cause.INPUTS_UNKNOWN,
)
def test_the_life_of_a_job_and_of_its_row(system: System, queue: Connection) -> None:
    system.insert_drop(day(1), [(epid, 0, PREMIERE, START) for epid in range(1, 7)])
    watch(system, day(1), 1)
    system.plan(day(1))
    ((plan_id,),) = system.query("queue", "SELECT plan_id FROM ledger.plans")

    def cause(epid: int) -> Cause:
        return explained(system, day(1), epid).cause

    assert cause(1) is Cause.NOT_HANDED_OUT
    fan_out_day(queue, day(1))
    assert cause(1) is Cause.WAITING

    async def fail(connection: AsyncConnection, claim: Claim) -> None:
        assert await asyncio.to_thread(cause, 1) is Cause.RUNNING
        running = await asyncio.to_thread(explained, system, day(1), 1)
        assert running.answer.startswith("its job is with worker worker-1 since 20")
        for job, max_starts in ((claim.jobs[0], 4), (claim.jobs[1], 1)):
            await claims.count_start(connection, claim, [job])
            await claims.record_failures(connection, claim, [job], JobFailure("OSError: x", ""), max_starts)
        await claims.release_claim(connection, claim)

    claimed(system, plan_id, fail)
    assert [cause(1), cause(2)] == [Cause.RETRYING, Cause.HELD]
    held = explained(system, day(1), 2)
    assert held.answer == "its job failed for the last time: OSError: x"
    assert "episodes jobs retry 2018-03-01" in held.hint
    assert "0 starts with others of its chunk, 1 alone" in said(held, "job")
    cancel_day(queue, day(1), reason="a wrong drop", cancelled_by="ana")
    assert [cause(1), cause(2)] == [Cause.CANCELLED, Cause.HELD]
    assert explained(system, day(1), 1).answer.startswith("the work of the day was cancelled by ana at 20")
    retry_held_jobs(queue, day(1))
    assert cause(2) is Cause.WAITING

    system.finish_jobs("epid IN (1, 3)")
    computed = explained(system, day(1), 1)
    assert (computed.cause, computed.answer) == (
        Cause.NOT_PUBLISHED_YET,
        "it is computed, and the day is not published yet: 4 jobs wait or run",
    )
    system.hold_jobs("epid NOT IN (1, 3)")
    waive_held_jobs(queue, day(1), reason="withdrawn", decided_by="ben")
    assert cause(2) is Cause.WAIVED
    assert ": withdrawn (decided by ben, 20" in explained(system, day(1), 2).answer
    publish(system)
    assert [cause(1), cause(2)] == [Cause.PUBLISHED, Cause.WAIVED]
    assert "without 4 jobs: withdrawn (ben)" in said(explained(system, day(1), 2), "results")
    retry_held_job(queue, day(1), 2, 0)
    system.finish_jobs("epid = 2")
    without = explained(system, day(1), 2)
    assert without.cause is Cause.PUBLISHED_WITHOUT
    assert "published without it (withdrawn (ben))" in without.answer
    publish(system)
    assert cause(2) is Cause.PUBLISHED
    assert "superseded: 20" in said(explained(system, day(1), 2), "earlier")

    system.query("results", "UPDATE published.results SET metrics = '{\"views\": 9}' WHERE epid = 2")
    assert "that is not its job's outcome" in said(explained(system, day(1), 2), "results")
    system.query("results", "DELETE FROM published.results WHERE epid = 1")
    assert cause(1) is Cause.ROW_MISSING
    assert explained(system, day(1), 1).hint.endswith("`episodes run 2018-03-01 --repair --reason WHY`")
    system.query("results", "UPDATE published.results SET epid = 999 WHERE epid = 2")
    assert cause(999) is Cause.WRITTEN_BY_SOMETHING_ELSE

    system.plan(day(1), rework=True)
    older = explained(system, day(1), 3)
    assert older.cause is Cause.PUBLISHED_FROM_OLDER_PLAN
    assert f"from plan {plan_id}, which was replaced since; the new plan {plan_id + 1} is" in older.answer
    assert "was superseded 20" in said(older, "plan")
    for change, expected in (
        ("viewings_version = NULL", Cause.PLAN_BEFORE_LAKE),
        ("viewings_version = 99", Cause.VIEWINGS_GONE),
        ("viewings_version = 1, viewings_digest = 'x'", Cause.VIEWINGS_GONE),
    ):
        system.query("queue", f"UPDATE ledger.plans SET {change} WHERE superseded_at IS NULL")
        assert cause(1) is expected
    gone = explained(system, day(1), 1)
    assert "is not the one that the plan was made from: its version 1 has other files" in gone.answer
    assert "not known any more" in said(gone, "viewings")
    system.forget_plans()
    assert cause(3) is Cause.PUBLISHED_FROM_UNKNOWN_PLAN
    assert cause(1) is Cause.INPUTS_UNKNOWN
    assert "the ledger does not know the plan of 2018-03-01 any more" in explained(system, day(1), 1).answer
    system.query("results", "DELETE FROM published.days")
    assert cause(3) is Cause.WRITTEN_BY_SOMETHING_ELSE


@pytest.mark.slow
@shows(Cause.RECORDS_CHANGED, Cause.JOB_MISSING, Cause.INPUTS_UNKNOWN)
def test_records_that_have_changed_since_and_records_that_are_gone(system: System) -> None:
    rows = [(epid, 0, PREMIERE, START) for epid in (1, 2)]
    for number, epid in ((1, 1), (2, 2)):
        system.insert_drop(day(number), rows)
        watch(system, day(number), epid)
    system.plan(day(1), day(2))
    assert explained(system, day(2), 1).cause is Cause.NOT_VIEWED

    system.query("queue", "DELETE FROM ledger.jobs WHERE epid = 2")
    assert explained(system, day(1), 2).cause is Cause.JOB_MISSING
    assert explained(system, day(2), 2).cause is Cause.JOB_MISSING

    taken = system.drops.require(day(1))
    system.query("input", "DELETE FROM episodes WHERE epid = 1 AND batch_date = %s", [day(1)])
    result = system.materialize(
        day(1), select=["input_episodes", "tracked_episodes"], config={"refresh": True, "reason": "wrong"}
    )
    assert result.success, failure(result)
    assert explained(system, day(2), 1).cause is Cause.RECORDS_CHANGED
    assert "not planned from yet: drop" in said(explained(system, day(1), 1), "catalogue")
    assert "because: wrong" in said(explained(system, day(1), 1), "catalogue")

    lake = Path(system.settings.lake)
    (lake / "episodes" / taken.episodes.path).unlink()
    gone = explained(system, day(1), 2)
    assert gone.cause is Cause.INPUTS_UNKNOWN
    assert gone.answer.startswith("the plan has no such job, and why is not known any more: ")
    assert gone.answer.endswith("is gone")
    shutil.rmtree(lake / "viewings" / f"day={day(2)}")
    assert (
        explained(system, day(2), 1).cause is Cause.RECORDS_CHANGED
    )  # newly tracked: nobody need have viewed it
    assert "whether it was viewed on the day is not known any more" in said(
        explained(system, day(2), 1), "due"
    )
    shutil.rmtree(lake)
    assert "the lake has no drop" in said(explained(system, day(1), 2), "catalogue")


@pytest.mark.slow
@shows(Cause.ALGORITHM_REMOVED)
def test_an_algorithm_that_was_removed(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.insert_drop(day(1), [(1, algorithm, PREMIERE, START) for algorithm in (0, 2)])
    watch(system, day(1), 1)
    system.plan(day(1))
    known = get_registry()
    by_id = {number: each for number, each in known.by_id.items() if number != 2}
    for module in ("defs.assets.episode_jobs", "explanation.diagnosis", "explanation.explaining"):
        removed = Registry(by_id, {}, (), known.modules)
        monkeypatch.setattr(f"episodes_assets.{module}.get_registry", lambda removed=removed: removed)
    assert explained(system, day(1), 1, 2).cause is Cause.NOT_HANDED_OUT
    system.plan(day(1), rework=True)
    found = explained(system, day(1), 1, 2)
    assert found.cause is Cause.ALGORITHM_REMOVED
    assert found.answer == "the day was planned without it: this release knows no algorithm 2"


@pytest.mark.slow
@shows(Cause.PLAN_BEFORE_LAKE, Cause.NOT_VIEWED)
def test_what_a_release_before_the_lake_has_left(system: System) -> None:
    for number, epid in ((1, 1), (2, 2)):
        system.insert_drop(day(number), [(epid, 0, PREMIERE, START) for epid in (1, 2)])
        watch(system, day(number), epid)
    system.plan(day(1), day(2))
    become_older(system, with_viewings=False)
    open_lake(system.settings).bring_in_older_snapshots("development", lambda _: None)
    listed = explained(system, day(2), 2)
    assert (listed.cause, listed.hint) == (
        Cause.PLAN_BEFORE_LAKE,
        "run `episodes run 2018-03-02`, which plans the day anew from the lake",
    )
    assert "viewed on the day" in said(listed, "due").splitlines()
    assert said(listed, "viewings") == (
        "not known any more: it was planned by a release before the lake, which names no version of it"
    )
    assert explained(system, day(2), 1).cause is Cause.NOT_VIEWED

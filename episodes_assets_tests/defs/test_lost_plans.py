"""A published day whose plan is lost or changed ends as it was; what is no damage is not called so."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg
import pytest

from episodes_assets.defs.assets import episode_jobs
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.ledger import plans
from episodes_assets.planning.jobs import plan_day
from episodes_assets_tests.support.repairs import (
    WHY,
    launch_repair,
    publish_three_days,
    repairs,
    stored,
    take_late_viewings,
)
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.slow

_OF_THE_DAY = "WHERE day = '2018-03-02' AND superseded_at IS NULL"
LOST = {
    "deleted": f"DELETE FROM ledger.plans {_OF_THE_DAY}",
    "superseded": f"UPDATE ledger.plans SET superseded_at = now() {_OF_THE_DAY}",
}
OUTCOME = (
    "DELETE FROM ledger.outcomes WHERE position = 1"
    f" AND plan_id = (SELECT plan_id FROM ledger.plans {_OF_THE_DAY})"
)
PLANS = "SELECT count(*) FROM ledger.plans WHERE day = '2018-03-02'"


@pytest.fixture
def worked(system: System) -> System:
    """Three published days, and viewings of the second in a version that nothing was computed from."""
    publish_three_days(system)
    take_late_viewings(system)
    return system


@pytest.fixture
def finished(system: System) -> System:
    """Three published days, whose outcomes no worker has computed."""
    system.generate(day(1), day(3), episodes=60)
    system.plan(day(1), day(3))
    system.finish_jobs()
    result = system.materialize(day(1), day(3), select=["job_outcomes", "published_results"])
    assert result.success, failure(result)
    return system


def said(result: dg.ExecuteInProcessResult) -> str:
    """What the steps of a run have logged."""
    with dg.DagsterInstance.get() as instance:
        return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


@pytest.mark.parametrize("statement", LOST.values(), ids=LOST)
def test_a_lost_plan_is_repaired_from_the_viewings_that_were_published(
    worked: System, statement: str
) -> None:
    before = stored(worked)
    worked.query("queue", statement)
    with worked.workers():
        repaired = launch_repair(WHY)
        assert repaired.success, failure(repaired)
        assert stored(worked) == before
        assert repairs(worked) == [(day(2), "plan", WHY)]
        again = worked.materialize(day(1), day(3))
    assert again.success, failure(again)
    assert stored(worked) == before


def test_an_ordinary_run_plans_a_lost_day_from_the_viewings_that_were_published(worked: System) -> None:
    before = stored(worked)
    worked.query("queue", LOST["deleted"])
    with worked.workers():
        result = worked.materialize(day(2))
    assert result.success, failure(result)
    assert (stored(worked), repairs(worked)) == (before, [])


def test_viewings_that_were_published_and_are_nowhere_are_named(finished: System) -> None:
    for table in ("days", "history"):
        finished.query("results", f"UPDATE published.{table} SET viewings_version = 99")
    finished.query("queue", LOST["deleted"])
    before = finished.fingerprint()
    for result in (launch_repair(WHY), finished.materialize(day(2), select=["episode_jobs"])):
        assert "has no version 99, which the publication of 2018-03-02 was made from" in failure(result)
    assert (finished.fingerprint(), repairs(finished)) == (before, [])


def test_a_changed_version_of_the_viewings_is_refused_and_repaired(worked: System) -> None:
    before = stored(worked)
    history = worked.fingerprint()["history"]
    worked.query("queue", f"UPDATE ledger.plans SET viewings_version = viewings_version + 1 {_OF_THE_DAY}")
    for asset in ("episode_jobs", "published_results"):
        found = failure(worked.materialize(day(2), select=[asset]))
        assert "something else writes" in found
        assert "`episodes run 2018-03-02 --repair --reason WHY`" in found
    assert worked.fingerprint()["history"] == history
    with worked.workers():
        repaired = launch_repair(WHY)
    assert repaired.success, failure(repaired)
    assert (stored(worked), repairs(worked)) == (before, [(day(2), "version of the viewings", WHY)])


def test_a_repair_that_another_one_has_overtaken_finds_nothing_to_repair(
    finished: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[dg.ExecuteInProcessResult] = []

    def repair() -> None:
        monkeypatch.setattr(episode_jobs, "plan_day", plan_day)
        first.append(finished.materialize(day(2), select=["episode_jobs"], repair="1"))

    def plan(*args: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(repair).result()
        return plan_day(*args)

    finished.query("queue", OUTCOME)
    monkeypatch.setattr(episode_jobs, "plan_day", plan)
    second = finished.materialize(day(2), select=["episode_jobs"], repair="2")
    assert second.success, failure(second)
    assert first[0].success, failure(first[0])
    assert repairs(finished) == [(day(2), "outcomes", "1")]
    assert finished.query("queue", PLANS) == [(2,)]
    assert "2018-03-02: repaired in this run: outcomes" in said(first[0])
    assert "nothing to repair" in said(second)


def test_a_step_that_is_tried_again_records_its_repair_once(
    finished: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_jobs = plans._copy_jobs
    copied: list[object] = []

    def away_at_first(*args: Any) -> None:
        copied.append(args)
        if len(copied) == 1:
            raise DatabaseUnreachable("the queue is away")
        copy_jobs(*args)

    finished.query("queue", OUTCOME)
    monkeypatch.setenv("EPISODES_RETRY_SECONDS", "0.01")
    monkeypatch.setattr(plans, "_copy_jobs", away_at_first)
    repaired = finished.materialize(day(2), select=["episode_jobs"], repair=WHY)
    assert repaired.success, failure(repaired)
    assert len(copied) == 2
    assert repairs(finished) == [(day(2), "outcomes", WHY)]


def test_a_day_that_is_only_out_of_date_is_brought_up_to_date_and_not_called_damaged(worked: System) -> None:
    """Its yesterday has got an episode that was tracked on the day itself."""
    ((epid,),) = worked.query(
        "results", "SELECT min(epid) FROM state.tracked_episodes WHERE tracked_on = '2018-03-02'"
    )
    worked.query("input", "DELETE FROM episodes WHERE batch_date = '2018-03-01' AND epid = %s", [epid])
    worked.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01")])
    with worked.workers():
        corrected = worked.materialize(day(1), config={"refresh": True, "reason": "a row was missing"})
        assert corrected.success, failure(corrected)
        repaired = launch_repair(WHY)
        assert repaired.success, failure(repaired)
        assert repairs(worked) == []
        assert "nothing to repair" in said(repaired)
        as_repaired = stored(worked)
        ordinary = worked.materialize(day(2))
    assert ordinary.success, failure(ordinary)
    assert stored(worked) == as_repaired


def test_a_held_job_of_which_nothing_is_known_is_found_and_repaired(system: System) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in (1, 2, 3)])
    system.plan(day(1))
    system.finish_jobs("epid = 1")
    system.hold_jobs("epid > 1")
    system.query("queue", "DELETE FROM ledger.job_attempts WHERE position > 0")
    told = failure(system.materialize(day(1), select=["job_outcomes"]))
    assert "2 jobs of 2018-03-01 count as held, and nothing says which" in told
    assert "`episodes run 2018-03-01 --repair --reason WHY`" in told
    repaired = system.materialize(day(1), select=["episode_jobs"], repair=WHY)
    assert repaired.success, failure(repaired)
    assert repairs(system) == [(day(1), "held jobs", WHY)]
    system.finish_jobs()
    result = system.materialize(day(1), select=["job_outcomes", "published_results"])
    assert result.success, failure(result)

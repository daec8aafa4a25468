"""A day whose drop asks for an algorithm that a release does not know any more."""

from typing import Any

import pytest

from episodes_assets.algorithms.registry import Registry, get_registry
from episodes_assets.defs.assets import episode_jobs
from episodes_assets_tests.support.system import System, day, failure


def newest_plan(system: System) -> Any:
    return system.query("queue", "SELECT plan_id, jobs FROM ledger.plans WHERE superseded_at IS NULL")[0]


@pytest.mark.long
def test_a_plan_keeps_its_jobs_and_a_new_one_does_not_get_them(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(1, 0), (1, 2), (2, 0), (3, 2)]
    system.insert_drop(day(1), [(epid, algorithm, "2018-02-01", "2018-02-01") for epid, algorithm in rows])
    system.insert_viewings([(3, 1, "2018-03-01 12:00", 60, True)])
    system.plan(day(1))
    assert [job[:2] for job in system.jobs(day(1))] == rows
    system.finish_jobs()
    published = system.materialize(day(1), select=["job_outcomes", "published_results"])
    assert published.success, failure(published)
    known = get_registry()
    by_id = {number: each for number, each in known.by_id.items() if number != 2}
    removed = Registry(by_id, {}, (), known.modules)
    monkeypatch.setattr(episode_jobs, "get_registry", lambda: removed)

    first = newest_plan(system)
    again = system.materialize(day(1), select=["episode_jobs"])
    assert again.success, failure(again)
    assert newest_plan(system) == first

    # What was published is not replaced by less unless somebody asks for it.
    system.forget_plans(day(1))
    refused = failure(system.materialize(day(1), select=["episode_jobs"]))
    assert "the plan that 2018-03-01 was published from is gone, and it had 2 jobs of algorithms" in refused
    assert "`episodes backfill 2018-03-01 2018-03-01 --rework`" in refused

    rework = system.materialize(day(1), select=["episode_jobs"], rework=True)
    assert rework.success, failure(rework)
    assert [job[:2] for job in system.jobs(day(1))] == [(1, 0), (2, 0)]
    said = [entry.user_message for entry in system.dagster.all_logs(rework.run_id)]
    assert "2018-03-01: 2 jobs are left out: this release knows no algorithm 2" in said
    (made,) = rework.asset_materializations_for_node("episode_jobs")
    shown: Any = made.metadata["left out, of algorithms that this release does not know"]
    assert [record.data for record in shown.records] == [{"algorithm": "2", "jobs": 2}]

    # Planned without them, it stays as it is, and is published.
    second = newest_plan(system)
    assert second != first
    again = system.materialize(day(1), select=["episode_jobs"])
    assert again.success, failure(again)
    assert newest_plan(system) == second
    system.finish_jobs()
    published = system.materialize(day(1), select=["job_outcomes", "published_results"])
    assert published.success, failure(published)
    assert set(system.published()["algorithm_id"]) == {0}
    again = system.materialize(day(1), select=["episode_jobs"])
    assert again.success, failure(again)
    assert newest_plan(system) == second

"""Damage of each kind is found by a check that names a command, and the command puts back what was there."""

from dataclasses import dataclass

import dagster as dg
import pytest

from episodes_assets.cli.runs import run_config
from episodes_assets.definitions import defs
from episodes_assets_tests.support.repairs import WHY, launch_repair, publish_three_days, repairs, stored
from episodes_assets_tests.support.runs import QUIET
from episodes_assets_tests.support.system import System, day, failure

pytestmark = [pytest.mark.process, pytest.mark.slow]

COMMAND = "episodes run 2018-03-02 --repair --reason"
STATE = "state_only_grows_and_matches_its_manifest"
JOBS = "every_due_row_has_one_job"
OUTCOMES = "every_job_has_one_outcome"
PUBLISHED = "published_rows_are_the_outcomes"
_PLAN = "(SELECT plan_id FROM ledger.plans WHERE day = '2018-03-02' AND superseded_at IS NULL)"


@dataclass(frozen=True)
class Damage:
    """What an administrator does to the second of three days, and what is to come of it."""

    database: str
    statement: str
    asset: str
    check: str
    repaired: str


DAMAGES = {
    "a tracked episode changed": Damage(
        "results",
        "UPDATE state.tracked_episodes SET epid = 777777 WHERE epid ="
        " (SELECT min(epid) FROM state.tracked_episodes WHERE tracked_on = '2018-03-02')",
        "tracked_episodes",
        STATE,
        "tracked episodes",
    ),
    "a tracked episode deleted": Damage(
        "results",
        "DELETE FROM state.tracked_episodes WHERE epid ="
        " (SELECT min(epid) FROM state.tracked_episodes WHERE tracked_on = '2018-03-02')",
        "tracked_episodes",
        STATE,
        "tracked episodes",
    ),
    "a tracked episode added": Damage(
        "results",
        "INSERT INTO state.tracked_episodes VALUES (777777, '2018-03-02')",
        "tracked_episodes",
        STATE,
        "tracked episodes",
    ),
    "a tracked day's total changed": Damage(
        "results",
        "UPDATE state.tracked_days SET total = total - 1 WHERE day = '2018-03-02'",
        "tracked_episodes",
        STATE,
        "tracked episodes",
    ),
    "a tracked day's checksum changed": Damage(
        "results",
        "UPDATE state.tracked_days SET checksum = 'x' WHERE day = '2018-03-02'",
        "tracked_episodes",
        STATE,
        "tracked episodes",
    ),
    "a job changed": Damage(
        "queue",
        f"UPDATE ledger.jobs SET window_start = window_start - 1 WHERE plan_id = {_PLAN} AND position = 1",
        "episode_jobs",
        JOBS,
        "jobs",
    ),
    "a job deleted": Damage(
        "queue",
        f"DELETE FROM ledger.jobs WHERE plan_id = {_PLAN} AND position = 1",
        "episode_jobs",
        JOBS,
        "jobs",
    ),
    "a job added": Damage(
        "queue",
        "INSERT INTO ledger.jobs (plan_id, position, epid, algorithm_id, window_start)"
        f" VALUES ({_PLAN}, 100000, 777777, 0, '2018-03-01')",
        "episode_jobs",
        JOBS,
        "jobs",
    ),
    "the number of a plan's jobs changed": Damage(
        "queue",
        f"UPDATE ledger.plans SET jobs = jobs - 1 WHERE plan_id = {_PLAN}",
        "episode_jobs",
        JOBS,
        "jobs",
    ),
    "the version of a plan's viewings changed": Damage(
        "queue",
        f"UPDATE ledger.plans SET viewings_version = viewings_version + 1 WHERE plan_id = {_PLAN}",
        "episode_jobs",
        JOBS,
        "version of the viewings",
    ),
    "an outcome deleted": Damage(
        "queue",
        f"DELETE FROM ledger.outcomes WHERE plan_id = {_PLAN} AND position = 1",
        "job_outcomes",
        OUTCOMES,
        "outcomes",
    ),
    "an outcome changed": Damage(
        "queue",
        f"UPDATE ledger.outcomes SET metrics = '{{}}' WHERE plan_id = {_PLAN} AND position = 1",
        "published_results",
        PUBLISHED,
        "outcomes",
    ),
    "a published row changed": Damage(
        "results",
        "UPDATE published.results SET metrics = '{\"views\": 7}' WHERE day = '2018-03-02' AND epid ="
        " (SELECT min(epid) FROM published.results WHERE day = '2018-03-02')",
        "published_results",
        PUBLISHED,
        "published rows",
    ),
    "a published row deleted": Damage(
        "results",
        "DELETE FROM published.results WHERE day = '2018-03-02' AND epid ="
        " (SELECT min(epid) FROM published.results WHERE day = '2018-03-02')",
        "published_results",
        PUBLISHED,
        "published rows",
    ),
    "a published row added": Damage(
        "results",
        "INSERT INTO published.results"
        " VALUES ('2018-03-02', 777777, 0, '2018-03-01', '2018-03-02', NULL, '{}')",
        "published_results",
        PUBLISHED,
        "published rows",
    ),
    "the manifest's checksum changed": Damage(
        "results",
        "UPDATE published.days SET checksum = 'x' WHERE day = '2018-03-02'",
        "published_results",
        PUBLISHED,
        "manifest",
    ),
    "the manifest's rows changed": Damage(
        "results",
        "UPDATE published.days SET rows = rows - 1 WHERE day = '2018-03-02'",
        "published_results",
        PUBLISHED,
        "manifest",
    ),
}


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {each.check_name for each in result.get_asset_check_evaluations() if not each.passed}


@pytest.fixture
def worked(system: System) -> System:
    """Three published days, and viewings of the second that have arrived since."""
    return publish_three_days(system)


@pytest.mark.timeout(900)
def test_each_damage_is_found_and_repaired(worked: System) -> None:
    before = stored(worked)
    with worked.workers():
        assert launch_repair(WHY).success
        assert (stored(worked), repairs(worked)) == (before, [])
        plans = worked.query("queue", "SELECT count(*) FROM ledger.plans")
        assert plans == [(3,)]  # what is whole is not worked again, and the late viewings are not used
        for name, damage in DAMAGES.items():
            worked.query("results", "DELETE FROM published.repairs")
            worked.query(damage.database, damage.statement)
            found = worked.materialize(day(2), select=[damage.asset])
            assert not found.success, name
            # Where the step itself finds it, there is nothing left to check.
            is_refused = "something else" in failure(found)
            assert is_refused or failed_checks(found) >= {damage.check}, name
            assert COMMAND in failure(found), name
            assert worked.materialize(day(2), select=[damage.asset]).success is False, name  # once more
            repaired = launch_repair(WHY)
            assert repaired.success, (name, failure(repaired))
            assert stored(worked) == before, name
            assert (day(2), damage.repaired, WHY) in repairs(worked), name
            again = worked.materialize(day(1), day(3))
            assert again.success, (name, failure(again))
            assert stored(worked) == before, name


def test_the_command_repairs_a_day_and_its_record_is_shown(worked: System) -> None:
    before = stored(worked)
    refused = worked.cli("run", "2018-03-02", "--repair")
    assert (refused.returncode, "--repair needs a reason" in refused.stderr) == (1, True)
    worked.query("results", DAMAGES["a published row deleted"].statement)
    repaired = worked.cli("run", "2018-03-02", "--repair", "--reason", WHY, "--workers", "1")
    assert repaired.returncode == 0, repaired.stderr
    assert "2018-03-02: repaired: published rows" in repaired.stdout
    assert stored(worked) == before
    again = worked.cli("run", "2018-03-02", "--repair", "--reason", WHY, "--workers", "0")
    assert (again.returncode, "There was nothing to repair." in again.stdout) == (0, True)
    shown = " ".join(worked.cli("history", "2018-03-02").stdout.split())
    assert "published rows" in shown
    assert "os user" in shown
    assert WHY in shown


def test_a_repair_without_a_reason_is_refused_before_anything_changes(worked: System) -> None:
    worked.query("results", DAMAGES["a published row deleted"].statement)
    before = stored(worked)
    assert "a day is repaired only for a reason" in failure(launch_repair(" "))
    assert stored(worked) == before


def test_a_state_that_was_damaged_earlier_names_the_days_to_repair(worked: System) -> None:
    before = stored(worked)
    earlier = "(SELECT min(epid) FROM state.tracked_episodes WHERE tracked_on = '2018-03-02')"
    for statement, command in (
        # Moved to the day before, which neither day can put right alone.
        (
            f"UPDATE state.tracked_episodes SET tracked_on = '2018-03-01' WHERE epid = {earlier}",
            "episodes run 2018-03-01 --repair",
        ),
        # Before the beginning.
        (
            "INSERT INTO state.tracked_episodes VALUES (777777, '2018-01-01')",
            "episodes run 2018-03-01 --repair",
        ),
    ):
        worked.query("results", statement)
        for result in (worked.materialize(day(2), select=["tracked_episodes"]), launch_repair(WHY)):
            assert command in failure(result)
        with worked.workers():
            with dg.DagsterInstance.get() as instance:
                repaired = defs.resolve_job_def("repair_days").execute_in_process(
                    instance=instance,
                    tags={
                        "dagster/asset_partition_range_start": str(day(1)),
                        "dagster/asset_partition_range_end": str(day(2)),
                    },
                    run_config={**run_config(repair=True, reason=WHY), **QUIET},
                    raise_on_error=False,
                )
            assert repaired.success, failure(repaired)
        assert stored(worked) == before


def test_a_swapped_episode_of_an_earlier_day_is_not_built_on(worked: System) -> None:
    before = stored(worked)
    worked.query("results", DAMAGES["a tracked episode changed"].statement)
    damaged = stored(worked)
    assert COMMAND in failure(launch_repair(WHY, 3))
    for select in (None, ["episode_jobs"]):
        assert COMMAND in failure(worked.materialize(day(3), select=select))
    assert stored(worked) == damaged
    with worked.workers():
        assert launch_repair(WHY).success
        assert worked.materialize(day(3)).success
    assert stored(worked) == before


def test_a_manifest_that_names_a_plan_which_never_was(worked: System) -> None:
    before = stored(worked)
    worked.query("results", "UPDATE published.days SET plan_id = 1000 WHERE day = '2018-03-02'")
    result = worked.materialize(day(2), select=["published_results"])
    assert COMMAND in failure(result)
    repaired = launch_repair(WHY)
    assert repaired.success, failure(repaired)
    assert stored(worked) == before
    assert repairs(worked) == [(day(2), "manifest", WHY)]


def test_changed_outcomes_are_not_published_by_a_repair_of_the_last_step_alone(worked: System) -> None:
    before = stored(worked)
    worked.query("queue", DAMAGES["an outcome changed"].statement)
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            partition_key=str(day(2)),
            asset_selection=[dg.AssetKey("published_results")],
            run_config={
                "ops": {"published_results": {"config": {"repair": True, "reason": WHY}}},
                **QUIET,
            },
            raise_on_error=False,
        )
    assert COMMAND in failure(result)
    assert stored(worked) == before

"""Checks through Dagster: each fails by the fault it is for, and nothing is built on what failed one."""

import datetime as dt
import time
from dataclasses import asdict

import dagster as dg
import pytest

from episodes_assets.checks import ledger as checks_ledger
from episodes_assets.definitions import defs
from episodes_assets.defs import sensors
from episodes_assets.input import reading
from episodes_assets.ledger import plans
from episodes_assets.planning import drop
from episodes_assets.planning.drop import ValidatedDrop, whole_episodes
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.system import System, day, failure

PUBLISHING = ["job_outcomes", "published_results"]
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    found = result.get_asset_check_evaluations()
    assert len({each.check_name for each in found}) == len(found)  # one event for all days
    return {each.check_name: each for each in found}


def days_of(check: dg.AssetCheckEvaluation) -> list[str]:
    table = check.metadata["days"]
    assert isinstance(table, dg.TableMetadataValue)
    return [str(record.data["day"]) for record in table.records]


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    return {e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key}


def assert_blocked(result: dg.ExecuteInProcessResult, name: str, *days: dt.date) -> None:
    assert not result.success
    check = checks(result)[name]
    assert (check.passed, check.severity, check.blocking) == (False, ERROR, True)
    assert days_of(check) == [str(each) for each in days]
    assert failure(result).startswith(f"{name}: ")
    assert check.asset_key.to_user_string() not in materialized(result)


def insert_episodes(system: System, number: int, good: int, bad: int = 0) -> None:
    on = day(number)
    epids = range(number * 1000, number * 1000 + good)
    system.insert_drop(on, [(epid, 0, on, on) for epid in epids])
    system.insert_drop(on, [(-1 - epid, 0, on, on) for epid in range(bad)])


@pytest.mark.long
def test_ordinary_days_pass_and_each_later_fault_is_found(system: System) -> None:
    system.generate(day(1), day(2), episodes=500)
    planned = system.materialize(day(1), day(2), select=PLANNING)
    assert planned.success, failure(planned)
    system.finish_jobs()
    published = system.materialize(day(1), day(2), select=PUBLISHING)
    assert published.success, failure(published)
    found = checks(planned) | checks(published)
    assert {name for name, check in found.items() if not check.passed} == set()
    assert len(found) == 15

    assert_each_fault(
        system,
        "episode_jobs",
        "every_due_row_has_one_job",
        "queue",
        [
            (
                "DELETE FROM ledger.jobs USING ledger.plans WHERE jobs.plan_id = plans.plan_id"
                " AND day = '2018-03-02' AND superseded_at IS NULL AND position = 1"
            ),
            (
                "UPDATE ledger.jobs SET window_start = window_start - 1 FROM ledger.plans"
                " WHERE jobs.plan_id = plans.plan_id AND day = '2018-03-02' AND superseded_at IS NULL"
                " AND position = 1"
            ),
            (
                "DROP INDEX ledger.one_job_for_each_episode_and_algorithm;"
                "INSERT INTO ledger.jobs SELECT plan_id, 10000, epid, algorithm_id, window_start"
                " FROM ledger.jobs JOIN ledger.plans USING (plan_id)"
                " WHERE day = '2018-03-02' AND superseded_at IS NULL AND position = 1"
            ),
        ],
    )
    system.finish_jobs()
    assert system.materialize(day(1), day(2), select=PUBLISHING).success
    assert_each_fault(
        system,
        "published_results",
        "published_rows_are_the_outcomes",
        "results",
        [
            (
                "UPDATE published.results SET metrics = '{\"views\": 7}' WHERE day = '2018-03-02' AND epid ="
                " (SELECT min(epid) FROM published.results WHERE day = '2018-03-02')"
            ),
        ],
    )


def assert_each_fault(system: System, asset: str, check: str, database: str, faults: list[str]) -> None:
    """Make each fault on the second of two days, see it found, and follow the advice."""
    for fault in faults:
        system.query(database, fault)
        result = system.materialize(day(1), day(2), select=[asset])
        assert_blocked(result, check, day(2))
        assert "episodes run 2018-03-02 --repair" in failure(result)
        assert system.materialize(day(2), select=[asset], repair="the check says so").success
        repaired = system.materialize(day(1), day(2), select=[asset])
        assert repaired.success, failure(repaired)


@pytest.mark.slow
def test_outcomes_that_are_missing_or_of_a_superseded_plan(system: System) -> None:
    for number in (1, 2):
        insert_episodes(system, number, 5)
    system.plan(day(1), day(2))
    system.finish_jobs()
    system.query("queue", "DELETE FROM ledger.outcomes WHERE plan_id = 2 AND position = 0")
    result = system.materialize(day(1), day(2), select=PUBLISHING)
    assert_blocked(result, "every_job_has_one_outcome", day(2))
    assert materialized(result) == set()
    assert system.published().empty
    system.finish_jobs()
    system.query(
        "queue",
        "INSERT INTO ledger.plans (day, jobs, checksum, snapshot_id, code_version, superseded_at)"
        " VALUES ('2018-03-01', 1, 'x', 'x', 'x', now());"
        "INSERT INTO ledger.jobs VALUES (3, 0, 1, 0, '2018-03-01');"
        "INSERT INTO ledger.outcomes VALUES (3, 0, NULL, '{}', '1', 'w')",
    )
    result = system.materialize(day(1), day(2), select=PUBLISHING)
    assert_blocked(result, "every_job_has_one_outcome", day(1))
    assert system.published().empty
    assert "episodes run 2018-03-01 --repair" in failure(result)
    assert system.materialize(day(1), select=["episode_jobs"], repair="the check says so").success
    system.finish_jobs()
    repaired = system.materialize(day(1), day(2), select=["job_outcomes"])
    assert repaired.success, failure(repaired)


FILES = ("episodes", "quarantine", "viewed")


@pytest.mark.long
@pytest.mark.parametrize("fault", ["a row lost while reading", "a row lost in the file"])
def test_a_drop_that_lost_a_row(system: System, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    insert_episodes(system, 1, 5)
    insert_episodes(system, 2, 6)
    if fault == "a row lost while reading":
        monkeypatch.setattr(
            reading, "whole_episodes", lambda *args: (part[:5] for part in whole_episodes(*args))
        )
    else:
        assert system.materialize(day(1), day(2), select=["input_episodes"]).success
        drops = system.drops
        lost = drops.require(day(2))
        with drops.writer(day(2)) as writer:
            (part,) = drops.read_drop(lost, drop.SCHEMA.names)
            writer.add(ValidatedDrop(part[1:], drops.read_quarantine(lost)))
            said = {name: value for name, value in asdict(lost).items() if name not in ("day", *FILES)}
            drops.commit([writer.finish_as(said, writer.quarantine.finish())], "development")
    result = system.materialize(day(1), day(2))
    assert_blocked(result, "drop_is_complete", day(2))
    assert materialized(result) == set()
    assert system.query("results", "SELECT FROM state.tracked_days") == []


@pytest.mark.slow
def test_a_large_quarantine_warns_and_a_larger_one_stops(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_episodes(system, 1, good=3, bad=1)
    warned = system.materialize(day(1), select=PLANNING)
    assert warned.success, failure(warned)
    check = checks(warned)["quarantine_is_small"]
    assert (check.passed, check.severity, days_of(check)) == (False, WARN, ["2018-03-01"])

    insert_episodes(system, 2, good=2, bad=1)
    stopped = system.materialize(day(2), select=PLANNING)
    assert_blocked(stopped, "quarantine_is_small", day(2))
    assert materialized(stopped) == set()
    # Nor is it built on in a run of its own, until somebody accepts it.
    for asset in ("tracked_episodes", "episode_jobs"):
        assert "1 of the 3 rows of the drop of 2018-03-02 were refused" in failure(
            system.materialize(day(2), select=[asset])
        )
    monkeypatch.setenv("EPISODES_QUARANTINE_LIMIT", "0.5")
    system.plan(day(2))


@pytest.mark.slow
def test_a_drop_of_a_tenth_is_flagged_and_planned(system: System) -> None:
    for number, rows in ((1, 20), (2, 30), (3, 20), (4, 20), (5, 2)):
        insert_episodes(system, number, rows)
    result = system.materialize(day(1), day(5), select=PLANNING)
    assert result.success, failure(result)
    for name in ("drop_size_is_usual", "job_count_is_usual"):
        check = checks(result)[name]
        assert (check.passed, check.severity, days_of(check)) == (False, WARN, ["2018-03-05"])
    # A run of the day alone finds its history in the stores.
    again = checks(system.materialize(day(5), select=PLANNING))
    assert again["drop_size_is_usual"].metadata["usual"].value == 20
    assert not again["job_count_is_usual"].passed
    first = checks(system.materialize(day(1), select=PLANNING))
    assert first["drop_size_is_usual"].metadata["history"].value == "not enough history"


TRIGGER = (
    "CREATE FUNCTION state.meddle() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN {what}; RETURN NEW; END $$;"
    "CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON state.{table} FOR EACH ROW"
    " WHEN ({when}) EXECUTE FUNCTION state.meddle()"
)


@pytest.mark.slow
def test_a_state_that_somebody_meddles_with(system: System) -> None:
    insert_episodes(system, 1, 5)
    insert_episodes(system, 2, 5)
    assert system.materialize(day(1), day(2), select=["input_episodes"]).success
    for table, when, what in (
        ("tracked_episodes", "NEW.epid = 2001", "RETURN NULL"),
        ("tracked_episodes", "NEW.epid = 2001", "NEW.epid = 5001"),
        ("tracked_days", "NEW.day = '2018-03-02'", "NEW.total = 4"),
        ("tracked_days", "NEW.day = '2018-03-02'", "NEW.previous_checksum = 'another'"),
    ):
        system.query("results", "DELETE FROM state.tracked_days; DELETE FROM state.tracked_episodes")
        system.query("results", TRIGGER.format(table=table, when=when, what=what))
        result = system.materialize(day(1), day(2), select=PLANNING)
        assert_blocked(result, "state_only_grows_and_matches_its_manifest", day(2))
        assert "episode_jobs" not in materialized(result)
        system.query("results", "DROP FUNCTION state.meddle CASCADE")
        assert "episodes run 2018-03-02 --repair" in failure(result)
        again = system.materialize(day(1), day(2), select=["tracked_episodes"])
        assert again.success == ("previous_checksum" in what)  # another yesterday is reason enough
        repaired = system.materialize(day(2), select=["tracked_episodes"], repair="the check says so")
        assert repaired.success, failure(repaired)


@pytest.mark.slow
def test_slow_planning_is_told_while_it_runs_and_flagged_at_its_end(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_episodes(system, 1, 5)
    system.plan(day(1))
    for _ in range(2):
        assert system.materialize(day(1), select=["episode_jobs"]).success
    monkeypatch.setattr(checks_ledger, "NEVER_SLOW_SECONDS", 0.0)

    def warnings(instance: dg.DagsterInstance, run_id: str) -> list[str]:
        return [e.user_message for e in instance.all_logs(run_id) if e.level == 30]

    record = plans.record_plan

    def record_once_somebody_was_told(*args: object, **kwargs: object) -> object:
        deadline = time.monotonic() + 60
        with dg.DagsterInstance.get() as instance:
            (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            while not warnings(instance, run.run_id):
                assert time.monotonic() < deadline, "nobody was told"
                time.sleep(0.05)
        return record(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(plans, "record_plan", record_once_somebody_was_told)
    result = system.materialize(day(1), select=["episode_jobs"])
    assert result.success, failure(result)
    with dg.DagsterInstance.get() as instance:
        (told,) = warnings(instance, result.run_id)
    assert told.startswith("planning has taken ")
    check = checks(result)["planning_is_as_fast_as_usual"]
    assert (check.passed, check.severity) == (False, WARN)
    assert str(check.description).startswith("planning took ")
    assert checks(result)["every_due_row_has_one_job"].passed


@pytest.mark.long
def test_yesterday_is_looked_for_by_the_daemon(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(on: dt.date, at: str) -> None:
        for table in ("days", "history"):
            system.query(
                "results",
                f"INSERT INTO published.{table} (day, jobs, rows, left_out, decision, checksum, plan_id,"
                " plan_checksum, code_version, algorithm_versions, published_at)"
                " VALUES (%s, 0, 0, 0, '', '', 1, '', '1', '{}', %s)",
                [on, at],
            )

    def tick(now: str, cursor: str | None = None) -> tuple[list[bool], str | None]:
        monkeypatch.setattr(sensors, "_now", lambda: dt.datetime.fromisoformat(now))
        with (
            dg.DagsterInstance.get() as instance,
            dg.build_sensor_context(instance=instance, cursor=cursor, resources=defs.resources) as context,
        ):
            data = sensors.freshness.evaluate_tick(context)
        evaluations = [each for each in data.asset_events if isinstance(each, dg.AssetCheckEvaluation)]
        assert len(evaluations) == len(data.asset_events)
        return [each.passed for each in evaluations], data.cursor

    publish(day(1), "2020-01-01 00:00+00")
    assert tick("2018-03-09T09:00:00+00:00")[0] == [True]  # a replay of the past
    publish(day(7), "2018-03-08 05:00+00")
    passed, cursor = tick("2018-03-09T07:59:00+00:00")
    assert passed == [True]
    passed, cursor = tick("2018-03-09T08:00:00+00:00", cursor)
    assert passed == [False]
    publish(day(2), "2018-03-09 08:01+00")  # an old day
    assert tick("2018-03-09T08:02:00+00:00", cursor)[0] == []
    assert tick("2018-03-09T09:02:00+00:00", cursor)[0] == [False]
    publish(day(8), "2018-03-09 08:03+00")
    assert tick("2018-03-09T08:04:00+00:00", cursor)[0] == [True]

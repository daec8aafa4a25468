"""Viewings that arrive after their day was taken: they are looked for, taken and told of."""

from typing import Any

import dagster as dg
import pytest

from episodes_assets.defs import observed
from episodes_assets.errors import LakeMismatch
from episodes_assets.input import reading as input_reading
from episodes_assets.lake import taking
from episodes_assets.lake.tables import LakeTable
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.input_viewings import (
    BEFORE,
    before_the_lake,
    fill,
    materialize,
    rows,
    verdicts,
    watch,
)
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_viewings_that_arrive_late_are_taken_with_the_next_day(system: System) -> None:
    fill(system, BEFORE, day(3))
    with system.workers():
        materialize(system, day(1))
        before = system.published()
        pinned = system.query("queue", "SELECT viewings_version FROM ledger.plans")
        watch(system, day(1), 2, first=10)
        late = verdicts(materialize(system, day(2)))["late_viewings_are_published"]
    assert not late.passed
    assert late.severity is dg.AssetCheckSeverity.WARN
    assert "`episodes run 2018-03-01 --rework`" in str(late.description)
    assert rows(system)[day(1)] == 25
    # Not even when the day is run again.
    unchanged = system.fingerprint()
    system.query("input", "INSERT INTO viewings VALUES (9, 1, '2018-03-01 12:00Z', 1, true)")
    materialize(system, day(1), day(1), select=PLANNING)
    assert system.fingerprint()["plans"] == unchanged["plans"]
    # What was published does not change by itself, and can be computed as it was.
    assert system.published().query("day == @day(1)").equals(before)
    ((version,),) = pinned
    assert system.viewings.at(version).files[day(1)].rows == 15
    history = system.query("queue", "SELECT viewings_version FROM ledger.plans ORDER BY day")
    assert history[0] == pinned[0] != history[1]
    # A range looks before its first day alone: what lies in it has just been taken.
    watch(system, day(1), 1, first=20)
    late = verdicts(materialize(system, day(3), select=PLANNING))["late_viewings_are_published"]
    assert "`episodes backfill 2018-03-01 2018-03-02 --rework`" in str(late.description)
    assert rows(system)[day(1)] == 31
    with system.workers():
        materialize(system, day(1), day(2), rework=True)
    assert verdicts(materialize(system, day(3), select=PLANNING))["late_viewings_are_published"].passed
    assert '"viewers": 6' in system.published()["metrics"].iloc[0]


@pytest.mark.long
def test_the_warning_of_late_viewings_ends_when_what_it_says_was_done(system: System) -> None:
    """Its check looks when the input is taken, which is before the same run publishes the days."""
    check = dg.AssetCheckKey(dg.AssetKey("input_viewings"), "late_viewings_are_published")
    fill(system, BEFORE, day(2))
    with system.workers():
        materialize(system, day(1))
        watch(system, day(1), 2, first=10)
        materialize(system, day(2))
        (failed,) = observed.failed_checks(system.dagster, [check])
        assert "`episodes run 2018-03-01 --rework`" in failed.message
        materialize(system, day(1), rework=True)
    assert observed.failed_checks(system.dagster, [check]) == []


@pytest.mark.slow
def test_a_day_is_computed_as_it_was_planned_or_from_what_is_there_now(system: System) -> None:
    fill(system, BEFORE, day(2))
    with system.workers():
        materialize(system, day(1), day(2))
        before = system.published()
        system.query("input", "UPDATE viewings SET seconds_watched = 90")
        watch(system, day(1), 2, first=10)
        config = {"refresh": True, "reason": "they were counted wrongly", "accept_lost_viewings": True}
        materialize(system, day(1), select=["input_episodes"], config=config)
        materialize(system, day(1), day(2), rework=True, as_planned=True)
        assert system.published().equals(before)
        materialize(system, day(1), day(2), rework=True)
        assert not system.published().equals(before)
        after = system.published()
        materialize(system, day(1), day(2), rework=True, as_planned=True)
        assert system.published().equals(after)


@pytest.mark.slow
def test_only_a_plan_that_still_fits_is_worked_as_planned(system: System) -> None:
    fill(system, BEFORE, day(1))
    materialize(system, day(1), select=PLANNING)
    system.insert_drop(day(1), [(9, 0, "2018-02-01", "2018-02-20")])
    config = {"refresh": True, "reason": "an episode was missing"}
    materialize(system, day(1), select=["input_episodes"], config=config)
    result = system.materialize(day(1), select=["episode_jobs"], rework=True, as_planned=True)
    assert "another drop than it was planned from" in failure(result)
    before_the_lake(system)
    materialize(system, day(1), select=["input_episodes"])
    result = system.materialize(day(1), select=["episode_jobs"], rework=True, as_planned=True)
    assert "names no version" in failure(result)
    shown = system.cli("run", str(day(1)), "--as-planned")
    assert (shown.returncode, "--as-planned is for --rework alone" in shown.stderr) == (1, True)


@pytest.mark.slow
def test_late_viewings_are_looked_for_as_long_as_is_said(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_LATE_DAYS", "1")
    fill(system, BEFORE, day(3))
    materialize(system, day(1), day(2), select=PLANNING)
    for number in (1, 2):
        watch(system, day(number), 1, first=10)
    materialize(system, day(3), select=PLANNING)
    assert rows(system) == {BEFORE: 15, day(1): 15, day(2): 20, day(3): 15}


@pytest.mark.slow
def test_a_look_back_that_failed_is_made_up_for(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(system, BEFORE, day(2))
    materialize(system, day(1), select=PLANNING)
    watch(system, day(1), 1, first=10)
    count = input_reading.count_viewings

    def fails(dsn: str, days: Any) -> Any:
        monkeypatch.setattr(taking, "count_viewings", count)
        raise LakeMismatch("a column of the input is another one", "put it right")

    monkeypatch.setattr(taking, "count_viewings", fails)
    assert "a column of the input is another one" in failure(system.materialize(day(2), select=PLANNING))
    materialize(system, day(2), select=PLANNING)
    assert rows(system)[day(1)] == 20
    # What is kept needs no input.
    system.query("input", "DROP TABLE viewings")
    materialize(system, day(1), day(2), select=PLANNING)


@pytest.mark.slow
def test_no_version_is_opened_to_see_that_nothing_arrived_late(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(system, BEFORE, day(3))
    with system.workers():
        for number in (1, 2):
            materialize(system, day(number))

    def never(self: Any, version: int) -> Any:
        raise AssertionError(version)

    monkeypatch.setattr(LakeTable, "_open", never)
    assert verdicts(materialize(system, day(3), select=PLANNING))["late_viewings_are_published"].passed

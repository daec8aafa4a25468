"""Viewings are read once and kept for ever: whatever the input loses, gains or changes afterwards."""

import datetime as dt
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from episodes_assets.cli.context import bring_in_older_snapshots
from episodes_assets.cli.correct import correct
from episodes_assets.cli.supervisor import worker_environment
from episodes_assets.defs import observed
from episodes_assets.errors import LakeMismatch, ViewingsGone
from episodes_assets.input import reading as input_reading
from episodes_assets.lake import taking
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.settings import WITHHELD
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.input_viewings import BEFORE, ONE_DAY, fill, materialize, watch
from episodes_assets_tests.support.older_release import become_older
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process


def retain(system: System, since: dt.date) -> None:
    """What other teams do with old viewings."""
    system.query("input", "DELETE FROM viewings WHERE viewed_at < %s", [f"{since}Z"])


def rows(system: System) -> dict[dt.date, int]:
    newest = system.viewings.newest()
    return {date: file.rows for date, file in newest.files.items()} if newest else {}


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


@pytest.mark.long
def test_days_are_computed_again_from_viewings_that_the_input_has_deleted(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(system, BEFORE - 3 * ONE_DAY, day(4))
    with system.workers():
        materialize(system, day(1), day(4))
        before = system.published()
        assert before["covered"].min() == BEFORE - 3 * ONE_DAY
        retain(system, day(4))
        correct(str(day(3)), reason="the drop was wrong", workers=0)
        assert "0 of 2 days changed" in capsys.readouterr().err
        assert system.published().equals(before)
        # Nor is the input needed at all.
        system.query("input", "DROP TABLE viewings")
        materialize(system, day(1), day(4), rework=True)
    assert system.published().equals(before)


def test_workers_are_given_no_way_to_the_input(system: System) -> None:
    environment = worker_environment(system.settings, system.dsns)
    assert environment[Purpose.WORKER.setting] == system.dsn(Purpose.WORKER)
    given = {each for each in Purpose if environment.get(each.setting, WITHHELD) != WITHHELD}
    assert given == {Purpose.WORKER}


@pytest.mark.slow
def test_a_history_begins_with_what_the_input_still_holds(system: System) -> None:
    fill(system, BEFORE - 9 * ONE_DAY, day(2))
    result = materialize(system, day(1), select=PLANNING)
    assert rows(system) == {BEFORE - number * ONE_DAY: 15 for number in range(10)} | {day(1): 15}
    (shown,) = [
        event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("input_viewings")
    ]
    assert (shown["viewings"].value, shown["viewings of earlier days"].value) == (15, 150)
    assert "data:image/svg+xml;base64," in str(shown["viewings by day"].value)
    # Later days have the day before: nothing is looked for any more.
    materialize(system, day(2), select=PLANNING)
    assert min(rows(system)) == BEFORE - 9 * ONE_DAY


@pytest.mark.slow
def test_how_far_back_it_begins_may_be_said(system: System) -> None:
    fill(system, BEFORE - 9 * ONE_DAY, day(1))
    materialize(system, day(1), select=PLANNING, config={"viewings_since": str(BEFORE - ONE_DAY)})
    assert min(rows(system)) == BEFORE - ONE_DAY
    result = system.materialize(day(1), select=PLANNING, config={"viewings_since": "yesterday"})
    assert "'yesterday' is not a day" in failure(result)
    refused = system.cli("backfill", str(day(1)), str(day(2)), "--since", "yesterday", "--workers", "0")
    assert (refused.returncode, "'yesterday' is not a day" in refused.stderr) == (1, True)


@pytest.mark.slow
def test_more_of_the_beginning_is_taken_when_it_is_asked_for(system: System) -> None:
    fill(system, BEFORE - 9 * ONE_DAY, day(1))
    materialize(system, day(1), select=PLANNING, config={"viewings_since": str(BEFORE)})
    assert min(rows(system)) == BEFORE
    materialize(system, day(1), select=PLANNING, config={"viewings_since": str(BEFORE - 4 * ONE_DAY)})
    assert min(rows(system)) == BEFORE - 4 * ONE_DAY


@pytest.mark.slow
def test_an_interrupted_beginning_goes_on_where_it_was(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(system, BEFORE - 5 * ONE_DAY, day(1))
    read: list[dt.date] = []

    def reading(dsn: str, date: dt.date, most: int = 3) -> Any:
        if len(read) == most:
            raise KeyboardInterrupt
        read.append(date)
        return input_reading.reading(dsn, date)

    monkeypatch.setattr(taking, "reading", reading)
    with pytest.raises(BaseException, match=""):  # noqa: PT011  Dagster's own, or the interrupt
        materialize(system, day(1), select=PLANNING)
    assert len(rows(system)) == 3
    first = set(rows(system))
    read.clear()
    monkeypatch.setattr(taking, "reading", partial(reading, most=99))
    materialize(system, day(1), select=PLANNING)
    assert len(rows(system)) == 7
    assert first.isdisjoint(read)


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


@pytest.mark.long
def test_less_never_replaces_what_was_taken(system: System) -> None:
    fill(system, BEFORE, day(3))
    materialize(system, day(1), day(2), select=PLANNING)
    system.query("input", "DELETE FROM viewings WHERE viewer_id = 1")
    kept = verdicts(materialize(system, day(3), select=PLANNING))["viewings_are_kept"]
    assert not kept.passed
    assert kept.severity is dg.AssetCheckSeverity.WARN
    assert "15 are gone from the input, which has 0 new, on 2018-02-28, 2018-03-01, 2018-03-02" in str(
        kept.description
    )
    assert rows(system) == {BEFORE: 15, day(1): 15, day(2): 15, day(3): 10}
    config = {"refresh": True, "reason": "the drop was wrong"}
    kept = verdicts(materialize(system, day(2), select=PLANNING, config=config))["viewings_are_kept"]
    assert not kept.passed
    assert rows(system)[day(2)] == 15


@pytest.mark.slow
def test_more_that_arrive_do_not_make_up_for_what_is_gone(system: System) -> None:
    """Neither by themselves nor when the day is refreshed, unless an operator says so."""
    fill(system, BEFORE, day(4))
    materialize(system, day(1), day(2), select=PLANNING)
    system.query("input", "DELETE FROM viewings WHERE viewer_id = 1 AND viewed_at < '2018-03-02Z'")
    watch(system, day(1), 4, first=10)
    before = system.viewings.newest()
    kept = verdicts(materialize(system, day(3), select=PLANNING))["viewings_are_kept"]
    assert not kept.passed
    assert "10 are gone from the input, which has 20 new, on 2018-02-28, 2018-03-01" in str(kept.description)
    assert rows(system) == {BEFORE: 15, day(1): 15, day(2): 15, day(3): 15}
    version, unchanged = system.viewings.newest(), system.fingerprint()
    config = {"refresh": True, "reason": "half of them were counted twice"}
    result = system.materialize(day(1), config=config, rework=True)
    assert "5 are gone from the input, and it has 20 new ones" in failure(result)
    with pytest.raises(BaseException, match="accept-lost-viewings"):
        correct(str(day(1)), reason="half of them were counted twice", workers=0)
    assert (system.viewings.newest(), system.fingerprint()) == (version, unchanged)
    materialize(system, day(1), select=PLANNING, config=config | {"accept_lost_viewings": True})
    assert rows(system)[day(1)] == 30
    assert before is not None
    assert system.viewings.at(*before.pinned) == before  # what was there stays readable
    # With that word it may also be fewer.
    system.query("input", "DELETE FROM viewings WHERE viewer_id > 0 AND viewed_at < '2018-03-02Z'")
    kept = verdicts(materialize(system, day(1), select=PLANNING, config=config))["viewings_are_kept"]
    assert "35 are gone from the input, which has 0 new, on 2018-02-28, 2018-03-01" in str(kept.description)
    assert rows(system)[day(1)] == 30
    materialize(system, day(1), select=PLANNING, config=config | {"accept_lost_viewings": True})
    assert rows(system)[day(1)] == 5
    shown = system.cli("lake", "status").stdout
    assert "20 other viewings of 2018-03-01 in place of 5 that were accepted as lost: half of them" in shown
    assert "0 other viewings of 2018-03-01 in place of 25" in shown
    assert "accepted as lost" in system.cli("history", str(day(1))).stdout
    refused = system.cli("run", str(day(1)), "--accept-lost-viewings")
    assert (refused.returncode, "--accept-lost-viewings needs a reason" in refused.stderr) == (1, True)


@pytest.mark.long
def test_viewings_are_taken_again_without_a_drop_where_their_loss_is_accepted(system: System) -> None:
    """Of days before the first one, which never had a drop, and of a day whose drop is gone."""
    fill(system, BEFORE - ONE_DAY, day(1))
    materialize(system, day(1), select=PLANNING)
    system.query("input", "DELETE FROM episodes")
    system.query("input", "DELETE FROM viewings WHERE viewer_id = 1")
    watch(system, BEFORE, 2, first=10)
    config: dict[str, object] = {"viewings_since": str(BEFORE)}
    materialize(system, day(1), select=["input_episodes"], config=config)
    assert rows(system) == {BEFORE - ONE_DAY: 15, BEFORE: 15, day(1): 15}  # those that were taken stay
    config = {"accept_lost_viewings": True}
    result = system.materialize(day(1), select=["input_episodes"], config=config)
    assert "taken again only for a reason" in failure(result)
    config |= {"reason": "they were of robots"}
    before = system.drops.require(day(1))
    materialize(system, day(1), select=["input_episodes"], config=config)
    assert rows(system) == {BEFORE - ONE_DAY: 15, BEFORE: 15, day(1): 10}
    config |= {"viewings_since": str(BEFORE)}
    materialize(system, day(1), select=["input_episodes"], config=config)
    assert rows(system) == {BEFORE - ONE_DAY: 15, BEFORE: 20, day(1): 10}
    assert system.drops.require(day(1)) == before
    taken = [(each.lost, each.reason) for each in system.viewings.commits()[-2:]]
    assert taken == [({day(1): (5, 0)}, "they were of robots"), ({BEFORE: (5, 10)}, "they were of robots")]


@pytest.mark.long
def test_a_loss_that_is_accepted_is_not_refused_by_a_later_step(system: System) -> None:
    """Of the day with which viewings begin: the days after it were published as covered from there."""
    fill(system, day(1), day(2))
    with system.workers():
        materialize(system, day(1), day(2))
        assert set(system.published()["covered"]) == {day(1)}
        system.query("input", "DELETE FROM viewings WHERE viewed_at < '2018-03-02Z'")
        correct(str(day(1)), reason="they were of a test", workers=0, accept_lost_viewings=True)
    assert rows(system) == {day(1): 0, day(2): 15}
    assert set(system.published().query("day == @day(2)")["covered"]) == {day(2)}


@pytest.mark.long
def test_no_day_of_a_range_is_worked_again_if_one_cannot_be(system: System) -> None:
    fill(system, BEFORE, day(2))
    with system.workers():
        materialize(system, day(1), day(2))
    # As of a day that was published before there was a lake.
    statement = "UPDATE published.results SET covered_from = %s WHERE day = %s"
    system.query("results", statement, [BEFORE - ONE_DAY, day(2)])
    unchanged = system.fingerprint()
    result = system.materialize(day(1), day(2), select=PLANNING, rework=True)
    assert "2018-03-02 cannot be computed again" in failure(result)
    assert system.fingerprint() == unchanged
    system.forget_plans(day(2))
    unchanged = system.fingerprint()
    result = system.materialize(day(1), day(2), select=PLANNING, rework=True, as_planned=True)
    assert "2018-03-02 has no planned jobs" in failure(result)
    assert system.fingerprint() == unchanged


@pytest.mark.slow
def test_what_the_check_of_kept_viewings_says_gives_them_up(system: System) -> None:
    fill(system, BEFORE, day(3))
    with system.workers():
        materialize(system, day(1))
        system.query("input", "DELETE FROM viewings WHERE viewed_at < '2018-03-02Z'")
        system.query("input", "DELETE FROM episodes WHERE batch_date < '2018-03-02'")
        kept = verdicts(materialize(system, day(2)))["viewings_are_kept"]
        assert "on 2018-02-28, 2018-03-01" in str(kept.description)
        (command,) = re.findall("`episodes (.*?)`", str(kept.description))
        done = system.cli(*command.split(), "--workers", "0")
        assert done.returncode == 0, done.stderr
    assert rows(system) == {BEFORE: 0, day(1): 0, day(2): 15}
    assert verdicts(materialize(system, day(3), select=["input_episodes"]))["viewings_are_kept"].passed


@pytest.mark.slow
def test_of_two_who_take_a_day_at_once_the_second_compares_with_the_first(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(system, BEFORE, day(2))
    materialize(system, day(1), select=PLANNING)
    watch(system, day(1), 1, first=10)
    write = Viewings.write

    def meanwhile(self: Any, date: dt.date, batches: Any) -> Any:
        found = write(self, date, batches)
        if date == day(1):  # another one takes a viewing that was gone before, and is gone again
            monkeypatch.setattr(Viewings, "write", write)
            watch(system, day(1), 1, first=20)
            system.take_viewings(day(1), day(1))
            system.query("input", "DELETE FROM viewings WHERE viewer_id = 20")
        return found

    monkeypatch.setattr(Viewings, "write", meanwhile)
    result = materialize(system, day(2), select=PLANNING)
    assert rows(system)[day(1)] == 25
    assert "5 are gone from the input, which has 0 new" in str(
        verdicts(result)["viewings_are_kept"].description
    )


@pytest.mark.long
def test_days_of_a_range_are_committed_together_and_kept_when_a_later_one_fails(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(system, BEFORE - 5 * ONE_DAY, day(6))
    system.query("input", "DELETE FROM episodes WHERE batch_date = %s", [day(6)])
    monkeypatch.setattr(taking, "MOST_DAYS", 4)
    result = system.materialize(day(1), day(6), select=PLANNING)
    assert "the drop of 2018-03-06 has not arrived" in failure(result)
    assert len(rows(system)) == 11
    newest = system.viewings.newest()
    assert newest is not None
    # The table, then 6 days before the history and 5 of it, of which the last one stands alone.
    assert newest.number == 4
    assert [system.drops.find(day(number)) is not None for number in range(1, 7)] == [True] * 5 + [False]


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


@pytest.mark.slow
def test_viewings_that_have_changed_replace_others_when_a_day_is_refreshed(system: System) -> None:
    fill(system, BEFORE, day(1))
    materialize(system, day(1), select=PLANNING)
    system.query("input", "UPDATE viewings SET seconds_watched = 90")
    config = {"refresh": True, "reason": "they were counted wrongly", "accept_lost_viewings": True}
    with system.workers():
        materialize(system, day(1), config=config, rework=True)
    # Three viewers on that day, and the day before as they were.
    assert f'"seconds_watched": {3 * 90 + 3 * 60}' in system.published()["metrics"].iloc[0]


@pytest.mark.long
def test_drop_and_viewings_are_of_one_moment(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(system, BEFORE, day(1))
    write = Viewings.write

    def meanwhile(self: Any, date: dt.date, batches: Any) -> Any:
        found = write(self, date, batches)
        if date == day(1):  # others write once the viewings were read
            system.insert_drop(day(1), [(99, 0, "2018-02-01", "2018-02-20")])
            watch(system, day(1), 1, first=10)
        return found

    monkeypatch.setattr(Viewings, "write", meanwhile)
    materialize(system, day(1), select=PLANNING)
    assert (system.drops.require(day(1)).drop_rows, rows(system)[day(1)]) == (5, 15)


def before_the_lake(system: System) -> None:
    """What a release from before the lake leaves, once its snapshots were brought in."""
    become_older(system, with_viewings=False)
    bring_in_older_snapshots(system.settings)


def half_worked_before_the_lake(system: System) -> None:
    """Day 1 published, day 2 in flight: two of its jobs have outcomes of the release before."""
    fill(system, BEFORE, day(3))
    with system.workers():
        materialize(system, day(1))
    materialize(system, day(2), select=PLANNING)
    before_the_lake(system)
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        fan_out_day(queue, day(2))
    system.finish_jobs("position < 2 AND plan_id = (SELECT max(plan_id) FROM ledger.plans)", views=77_777)


@pytest.mark.slow
def test_a_plan_in_flight_from_before_the_lake_is_worked_from_it_as_a_whole(system: System) -> None:
    half_worked_before_the_lake(system)
    with system.workers():  # they can do nothing with it yet
        materialize(system, day(3))
        assert system.jobs(day(2))
        materialize(system, day(2))
    assert rows(system) == {BEFORE: 15, day(1): 15, day(2): 15, day(3): 15}
    published = system.published()
    assert set(published["day"]) == {day(1), day(2), day(3)}
    assert set(published["covered"]) == {BEFORE}
    assert not published["metrics"].str.contains("77777").any()
    plans = system.query(
        "queue",
        "SELECT viewings_version IS NULL, superseded_at IS NULL FROM ledger.plans WHERE day = %s"
        " ORDER BY plan_id",
        [day(2)],
    )
    assert plans == [(True, False), (False, True)]


@pytest.mark.long
def test_a_plan_in_flight_whose_viewings_went_before_the_lake_is_refused(system: System) -> None:
    half_worked_before_the_lake(system)
    system.query("input", "DELETE FROM viewings WHERE epid = 3 AND viewed_at >= '2018-03-02Z'")
    system.query("input", "INSERT INTO viewings SELECT 3, 1, '2018-03-03 12:00Z', 60, true")
    materialize(system, day(3), select=PLANNING)
    unchanged = system.fingerprint()
    assert "has deleted viewings of 2018-03-02" in failure(system.materialize(day(2), select=PLANNING))
    result = system.materialize(day(2), select=["episode_jobs"])
    assert "has no viewings of 2018-03-02" in failure(result)
    assert system.fingerprint() == unchanged


@pytest.mark.slow
def test_a_day_whose_viewings_went_before_the_lake_is_left_as_it_is(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(system, BEFORE - 3 * ONE_DAY, day(3))
    with system.workers():
        materialize(system, day(1), day(2))
        before = system.published()
        before_the_lake(system)
        retain(system, day(2))
        changed = system.fingerprint()
        # What is not in the lake is not recorded as taken.
        refused = system.materialize(day(1), day(2))
        assert "the input has deleted viewings of 2018-03-01" in failure(refused)
        assert refused.get_asset_materialization_events() == []
        assert system.published().equals(before)
        assert system.fingerprint() == changed
        for number in (1, 2):
            for config in ({}, {"refresh": True, "reason": "it was wrong"}):
                result = system.materialize(day(number), config=config, rework=True)
                assert "cannot be computed again" in failure(result)
                if config or number == 2:  # the lake has day 2
                    assert f"published from viewings since {BEFORE - 3 * ONE_DAY}" in failure(result)
        with pytest.raises(ViewingsGone, match="2018-03-01, 2018-03-02 cannot be computed again"):
            correct(str(day(1)), reason="it was wrong", workers=0)
        assert system.published().equals(before)
        assert system.fingerprint() == changed
        # The history goes on.
        materialize(system, day(3))
    assert system.published().query("day == @day(3)")["covered"].min() == day(2)


@pytest.mark.slow
def test_a_day_of_which_the_input_has_lost_some_before_the_lake_is_not_taken(system: System) -> None:
    fill(system, BEFORE, day(3))
    with system.workers():
        materialize(system, day(1), day(2))
    before = system.published()
    before_the_lake(system)
    system.query("input", "DELETE FROM viewings WHERE epid = 3 AND viewed_at < '2018-03-02Z'")
    with system.workers():
        materialize(system, day(3))
        assert sorted(rows(system)) == [BEFORE, day(2), day(3)]
        assert "the input has deleted viewings of 2018-03-01" in failure(system.materialize(day(1)))
        for config in ({}, {"refresh": True, "reason": "it was wrong"}):
            result = system.materialize(day(2), config=config, rework=True)
            assert "cannot be computed again" in failure(result)
    assert system.published().query("day < @day(3)").equals(before)


@pytest.mark.slow
def test_a_lake_that_was_lost_is_told(system: System, tmp_path: Path) -> None:
    fill(system, BEFORE, day(2))
    with system.workers():
        materialize(system, day(1))
        before = system.published()
        shutil.move(system.settings.lake, tmp_path / "elsewhere")
        retain(system, day(2))
        result = system.materialize(day(1), rework=True)
        assert "cannot be computed again" in failure(result)
    assert system.published().equals(before)
    assert "the lake does not have the versions" in system.cli("db", "status").stdout


@pytest.mark.slow
def test_a_lake_that_was_lost_and_grew_again_is_not_taken_for_the_one_before(
    system: System, tmp_path: Path
) -> None:
    """Its versions have the same numbers, so it is by their content that they are told apart."""
    fill(system, BEFORE, day(3))
    with system.workers():
        materialize(system, day(1), day(2))
        before = system.published()
        system.plan(day(3))
        table = Path(system.settings.lake, "viewings")
        shutil.move(table, tmp_path / "before")
        system.query("input", "UPDATE viewings SET seconds_watched = 90")
        system.take_viewings(BEFORE, day(3))
        for number in range(4):  # as many versions as the one before
            system.query("input", "UPDATE viewings SET seconds_watched = %s", [91 + number])
            system.take_viewings(day(3), day(3))
        newest = system.viewings.newest()
        assert newest is not None
        ((highest,),) = system.query("queue", "SELECT max(viewings_version) FROM ledger.plans")
        assert newest.number >= highest
        for again in (True, False):
            result = system.materialize(day(2), select=["episode_jobs"], rework=again, as_planned=again)
            assert "is not the one that the plan of 2018-03-02 was made from" in failure(result)
        late = verdicts(materialize(system, day(3), select=["input_episodes"]))["late_viewings_are_published"]
        assert not late.passed
        assert "the lake is not the one from which the days were computed" in str(late.description)
        told = system.cli("db", "status")
        assert told.returncode == 1
        assert "the lake is not the one that 3 days (2018-03-01" in told.stdout
        for command in ("status", "verify", "vacuum"):
            told = system.cli("lake", command)
            assert told.returncode == 1
            assert "is not the one that" in told.stderr
        # A fleet that was there before it was replaced computes nothing from it.
        with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
            fan_out_day(queue, day(3))
        assert system.published().equals(before)
        shutil.rmtree(table)
        shutil.move(tmp_path / "before", table)
        materialize(system, day(1), day(3))
    assert system.published().query("day < @day(3)").equals(before)
    assert '"seconds_watched": 720' in system.published().query("day == @day(3)")["metrics"].iloc[0]
    assert system.cli("lake", "status").returncode == 0

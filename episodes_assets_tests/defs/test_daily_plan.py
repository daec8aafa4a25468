"""The daily plan through Dagster's scheduler: whatever nights are missed, each day is planned once."""

import datetime as dt
from collections.abc import Iterator

import pandas as pd
import pytest

from episodes_assets.defs.runs import days_of_run
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results.copies import import_state
from episodes_assets_tests.defs.launchpad import Launchpad, opened_ui
from episodes_assets_tests.support.system import System, day

PLANNING = ["input_episodes", "tracked_episodes", "episode_jobs"]
FIVE_MINUTES = dt.timedelta(minutes=5)


@pytest.fixture
def ui(system: System) -> Iterator[Launchpad]:
    with opened_ui() as opened:
        opened.switch_on("daily_plan", night_after(1) - dt.timedelta(hours=1))
        yield opened


def night_after(number: int) -> dt.datetime:
    """01:00 UTC after the number-th day."""
    return dt.datetime.combine(day(number + 1), dt.time(1), dt.UTC)


def insert_drops(system: System, *numbers: int) -> None:
    for number in numbers:
        system.insert_drop(day(number), [(number, 0, "2018-02-01", "2018-02-01")])


def planned(system: System) -> list[dt.date]:
    rows = system.query("queue", "SELECT day FROM ledger.plans WHERE superseded_at IS NULL ORDER BY day")
    return [row[0] for row in rows]


def tick(ui: Launchpad, at: dt.datetime) -> tuple[str, list[list[dt.date]]]:
    """Let the scheduler look at a time, and work what it launches."""
    reason, runs = ui.evaluate("daily_plan", at)
    for run in runs:
        assert ui.work(run) == ""
    return reason, [days_of_run(run) for run in runs]


def let_pass(system: System, hours: float) -> None:
    """As if all runs had ended so long ago."""
    system.query(
        "dagster",
        "UPDATE dagster.runs SET update_timestamp = update_timestamp - make_interval(mins => %s)",
        [int(hours * 60)],
    )


@pytest.mark.slow
def test_three_nights_without_a_daemon_are_made_up_for(system: System, ui: Launchpad) -> None:
    insert_drops(system, 1, 2, 3, 4)
    assert tick(ui, night_after(1)) == ("", [[day(1)]])
    assert tick(ui, night_after(1) + FIVE_MINUTES) == ("each day up to 2018-03-01 is planned", [])
    assert tick(ui, night_after(4)) == ("", [[day(2), day(3), day(4)]])
    assert planned(system) == [day(number) for number in range(1, 5)]
    assert tick(ui, night_after(4) + FIVE_MINUTES)[1] == []
    # The next one is not begun before it has been over for an hour.
    insert_drops(system, 5)
    assert tick(ui, night_after(5) - FIVE_MINUTES)[1] == []
    assert tick(ui, night_after(5))[1] == [[day(5)]]


@pytest.mark.slow
def test_the_days_up_to_a_missing_drop_are_planned_and_the_rest_waits(system: System, ui: Launchpad) -> None:
    insert_drops(system, 1, 2, 4, 5)
    tick(ui, night_after(1))
    assert tick(ui, night_after(5)) == ("", [[day(2)]])
    for minutes in (5, 10):
        reason, runs = tick(ui, night_after(5) + dt.timedelta(minutes=minutes))
        assert runs == []
        assert reason == (
            "the drop of 2018-03-03 has not arrived in the input database, where the newest one before it is "
            "of 2018-03-02 and the next one after it is of 2018-03-04; after it wait 2 days, up to 2018-03-05"
        )
    insert_drops(system, 3)
    assert tick(ui, night_after(5) + 3 * FIVE_MINUTES) == ("", [[day(3), day(4), day(5)]])


@pytest.mark.slow
def test_days_that_are_kept_need_no_drop(system: System, ui: Launchpad) -> None:
    insert_drops(system, 1, 2, 3)
    tick(ui, night_after(1))
    assert system.materialize(day(2), select=["input_episodes"]).success
    system.query("input", "DELETE FROM episodes WHERE batch_date < %s", [day(3)])
    assert tick(ui, night_after(3))[1] == [[day(2), day(3)]]


@pytest.mark.slow
def test_a_day_that_fails_is_tried_again_by_itself_with_backoff(system: System, ui: Launchpad) -> None:
    insert_drops(system, 1, 2, 4)
    tick(ui, night_after(1))
    # Refused: of the drop of the third day too much is wrong.
    system.insert_drop(day(3), [(None, 0, "2018-02-01", "2018-02-01"), (3, 0, "2018-02-01", "2018-02-01")])

    def failing(at: dt.datetime) -> list[dt.date]:
        (run,) = ui.evaluate("daily_plan", at)[1]
        assert "quarantine_is_small" in ui.work(run)
        return days_of_run(run)

    assert failing(night_after(4)) == [day(2), day(3), day(4)]
    assert planned(system) == [day(1)]
    at = night_after(4) + FIVE_MINUTES
    reason, runs = tick(ui, at)
    assert runs == []
    assert "2018-03-02 could not be planned 1 times and is tried again after" in reason
    let_pass(system, 0.1)
    assert tick(ui, at + FIVE_MINUTES)[1] == [[day(2)]]
    assert failing(at + 2 * FIVE_MINUTES) == [day(3)]
    reason, runs = tick(ui, at + 3 * FIVE_MINUTES)
    assert runs == []
    assert "2018-03-03 could not be planned 2 times" in reason
    assert reason.endswith("after it wait 1 days, up to 2018-03-04")
    # Corrected by hand, the rest follows.
    system.query("input", "DELETE FROM episodes WHERE batch_date = %s AND epid IS NULL", [day(3)])
    assert system.materialize(day(3), config={"refresh": True, "reason": "r"}, select=PLANNING).success
    let_pass(system, 0.2)
    assert tick(ui, at + 4 * FIVE_MINUTES)[1] == [[day(4)]]
    assert planned(system) == [day(number) for number in range(1, 5)]


@pytest.mark.slow
def test_a_day_that_was_tracked_and_not_planned_is_not_forgotten(system: System, ui: Launchpad) -> None:
    insert_drops(system, 1, 2, 3, 4)
    tick(ui, night_after(1))
    assert system.materialize(day(2), day(3), select=PLANNING[:2]).success
    assert tick(ui, night_after(4))[1] == [[day(2), day(3), day(4)]]


@pytest.mark.slow
def test_an_imported_state_is_the_first_days_yesterday(system: System, ui: Launchpad) -> None:
    insert_drops(system, 11, 12)
    with connect(system.dsn(Purpose.RESULTS), autocommit=True) as results:
        state = pd.DataFrame({"epid": [1, 2], "tracked_on": pd.to_datetime(["2018-03-01"] * 2).as_unit("s")})
        import_state(results, state, day(10), "1")
    assert tick(ui, night_after(12))[1] == [[day(11), day(12)]]
    assert planned(system) == [day(11), day(12)]


@pytest.mark.slow
def test_without_a_history_the_newest_day_begins_one(system: System, ui: Launchpad) -> None:
    insert_drops(system, 1, 2)
    reason, runs = tick(ui, night_after(3))
    assert runs == []
    assert "the drop of 2018-03-03 has not arrived" in reason
    insert_drops(system, 3)
    assert tick(ui, night_after(3) + FIVE_MINUTES)[1] == [[day(3)]]
    assert planned(system) == [day(3)]


@pytest.mark.slow
def test_never_are_there_two_runs_for_a_day(system: System, ui: Launchpad) -> None:
    insert_drops(system, 1, 2, 3)
    tick(ui, night_after(1))
    (run,) = ui.evaluate("daily_plan", night_after(2))[1]
    reason, runs = ui.evaluate("daily_plan", night_after(3))
    waiting = f"2018-03-02 waits for run {run.run_id}; after it wait 1 days, up to 2018-03-03"
    assert (reason, runs) == (waiting, [])
    assert ui.work(run) == ""
    assert tick(ui, night_after(3) + FIVE_MINUTES)[1] == [[day(3)]]


@pytest.mark.slow
def test_a_broken_history_is_told_and_nothing_is_launched(system: System, ui: Launchpad) -> None:
    insert_drops(system, 1, 2, 3)
    tick(ui, night_after(2))
    system.query("results", "UPDATE state.tracked_days SET origin = 'day', previous_checksum = 'x'")
    for minutes in (0, 5):
        reason, runs = tick(ui, night_after(3) + dt.timedelta(minutes=minutes))
        assert runs == []
        assert "were built on another" in reason


def test_switched_off_it_plans_nothing(system: System) -> None:
    insert_drops(system, 1)
    with opened_ui() as ui:
        for number in (1, 2):
            assert ui.evaluate("daily_plan", night_after(number)) == ("", [])

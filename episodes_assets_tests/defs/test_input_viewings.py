"""Viewings are read once, from where a history begins, and kept for ever."""

import datetime as dt
from functools import partial
from typing import Any

import dagster as dg
import pytest

from episodes_assets.cli.correct import correct
from episodes_assets.cli.supervisor import worker_environment
from episodes_assets.input import reading as input_reading
from episodes_assets.lake import taking
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres.databases import Purpose
from episodes_assets.settings import WITHHELD
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.input_viewings import (
    BEFORE,
    ONE_DAY,
    fill,
    materialize,
    retain,
    rows,
    watch,
)
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process


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

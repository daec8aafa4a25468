"""Days of releases before the lake, and lakes that were lost: worked as a whole, or refused by name."""

import shutil
from pathlib import Path

import pytest

from episodes_assets.cli.correct import correct
from episodes_assets.errors import ViewingsGone
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.input_viewings import (
    BEFORE,
    ONE_DAY,
    before_the_lake,
    fill,
    materialize,
    retain,
    rows,
    verdicts,
)
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process


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

"""Viewings that the input has lost: the lake keeps them, unless an operator accepts the loss."""

import datetime as dt
import re
from typing import Any

import dagster as dg
import pytest

from episodes_assets.cli.correct import correct
from episodes_assets.lake.viewings import Viewings
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.input_viewings import (
    BEFORE,
    ONE_DAY,
    fill,
    materialize,
    rows,
    verdicts,
    watch,
)
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process


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

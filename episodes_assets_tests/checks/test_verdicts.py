"""The laws of bands and verdicts."""

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.checks.lake import DropRows, drop_is_complete, quarantine_is_small
from episodes_assets.checks.ledger import (
    FAR_SLOWER,
    NEVER_SLOW_SECONDS,
    OutcomesDay,
    Planning,
    every_job_has_one_outcome,
    planning_is_as_fast_as_usual,
    slow_after,
    usual_seconds,
)
from episodes_assets.checks.results import (
    Publications,
    StateDay,
    due_day,
    state_only_grows,
    yesterday_is_published,
)
from episodes_assets.checks.verdicts import HISTORY_DAYS, LEAST_HISTORY, Verdict, count_is_usual, usual_band
from episodes_assets.days import ONE_DAY
from episodes_assets_tests.support.system import day

COUNTS = st.integers(1, 10**7)
STEPS = st.builds(Planning, days=st.integers(1, 900), rows=COUNTS, seconds=st.floats(0.01, 9_999))


def usual(counts: dict[dt.date, int], *days: dt.date) -> Verdict:
    return count_is_usual("check", counts, days, what="rows", low=0.5, high=2, hint="look at {day}")


@given(st.lists(COUNTS, min_size=LEAST_HISTORY, max_size=HISTORY_DAYS), st.integers(1, 1000))
def test_a_band_holds_its_median_and_scales_with_it(earlier: list[int], factor: int) -> None:
    band = usual_band(earlier, 0.5, 2)
    assert band is not None
    assert min(earlier) <= band.usual <= max(earlier)
    assert band.holds(band.usual)
    assert band.holds(band.low)
    assert band.holds(band.high)
    assert not band.holds(band.usual / 10)
    assert not band.holds(band.usual * 10)
    scaled = usual_band([count * factor for count in earlier], 0.5, 2)
    assert scaled is not None
    assert scaled.high == pytest.approx(band.high * factor)


@given(st.lists(COUNTS, max_size=LEAST_HISTORY - 1), COUNTS)
def test_without_enough_history_any_count_passes(earlier: list[int], count: int) -> None:
    counts = {day(20) - (n + 1) * ONE_DAY: each for n, each in enumerate(earlier)}
    verdict = usual({**counts, day(20): count}, day(20))
    assert verdict.passed
    assert verdict.facts["history"] == "not enough history"


@given(COUNTS, st.integers(5, 30), st.integers(4, 30))
def test_a_drop_to_a_tenth_is_found_on_its_day_alone(count: int, length: int, at: int) -> None:
    days = [day(n) for n in range(1, length + 1)]
    counts = dict.fromkeys(days, 10 * count)
    if day(at) in counts:
        counts[day(at)] = count
    verdict = usual(counts, *days)
    assert [row["day"] for row in verdict.offending] == ([str(day(at))] if at <= length else [])
    assert verdict.passed == (at > length)
    assert not verdict.blocks


def test_days_older_than_the_history_do_not_count() -> None:
    counts = {day(n): 1 for n in range(1, 4)} | {day(n): 100 for n in range(10, 13)} | {day(24): 100}
    assert usual(counts, day(24)).passed
    assert not usual(counts | {day(24): 1}, day(24)).passed
    assert usual({day(n): 1 for n in range(1, 4)} | {day(24): 100}, day(24)).passed


@given(st.lists(STEPS, min_size=LEAST_HISTORY, max_size=HISTORY_DAYS), STEPS)
def test_planning_is_slow_beyond_its_limit_and_only_there(history: list[Planning], step: Planning) -> None:
    limit = slow_after(step.days, step.rows, history)
    assert limit is not None
    assert limit >= NEVER_SLOW_SECONDS
    assert planning_is_as_fast_as_usual(replace(step, seconds=limit), history).passed
    slow = planning_is_as_fast_as_usual(replace(step, seconds=limit * 1.01), history)
    assert not slow.passed
    assert not slow.blocks
    # Twice the days of the same size may take twice as long; more rows never have to take less.
    expected = usual_seconds(step.days, step.rows, history)
    assert expected is not None
    assert usual_seconds(2 * step.days, 2 * step.rows, history) == pytest.approx(2 * expected)
    assert (usual_seconds(step.days, 3 * step.rows, history) or 0) >= expected


def test_the_hour_that_began_it_all_is_flagged() -> None:
    seconds = [2.3, 2.1, 2.6, 2.2]
    history = [Planning(days=1, rows=1_402_909, seconds=each) for each in seconds]
    limit = slow_after(1, 1_402_909, history)
    assert limit == pytest.approx(FAR_SLOWER * 2.25)
    assert slow_after(1, 14_029_090, history) == pytest.approx(FAR_SLOWER * 22.5)
    assert slow_after(1, 140_290, history) == limit  # few rows need not take less
    verdict = planning_is_as_fast_as_usual(Planning(1, 1_402_909, 3_300), history)
    assert not verdict.passed
    assert "planning took 3,300.0 s, its history says 2.2 s and at most 11.2 s" in verdict.message
    assert planning_is_as_fast_as_usual(Planning(1, 1_402_909, 3_300), history[:2]).passed


@given(st.integers(0, 1000), st.integers(1, 1000), st.floats(0, 1))
def test_a_quarantine_warns_and_stops_by_its_share(refused: int, accepted: int, limit: float) -> None:
    rows = refused + accepted
    drop = DropRows(day(1), rows, accepted, refused, accepted, refused)
    verdict = quarantine_is_small([drop], limit)
    assert verdict.passed == (refused / rows <= min(0.05, limit))
    assert verdict.blocks == (refused / rows > limit)


@pytest.mark.parametrize(
    "field", ["read", "accepted", "quarantined", "accepted_stored", "quarantined_stored"]
)
def test_a_drop_is_complete_when_all_counts_agree(field: str) -> None:
    whole = DropRows(day(1), 12, 10, 2, 10, 2)
    assert drop_is_complete([whole]).passed
    broken = replace(whole, day=day(2), **{field: getattr(whole, field) - 1})
    verdict = drop_is_complete([whole, broken])
    assert verdict.blocks
    assert [row["day"] for row in verdict.offending] == [str(day(2))]


def test_one_lost_and_one_doubled_outcome_do_not_make_up_for_each_other() -> None:
    ordinary = OutcomesDay(day(1), 5, 5, outcomes=4, waived=1, repeated=0, superseded=0)
    assert every_job_has_one_outcome([ordinary]).passed
    for broken in (
        replace(ordinary, repeated=1),
        replace(ordinary, superseded=1),
        replace(ordinary, outcomes=5),
        replace(ordinary, waived=0),
        replace(ordinary, stored=4),
    ):
        assert every_job_has_one_outcome([ordinary, broken]).blocks


def test_a_day_of_the_state_that_is_missing_or_shrinks() -> None:
    whole = StateDay(day(1), 2, 7, "b", "a", 5, "a", newly_stored=2, stored=7, stored_checksum="b")
    assert state_only_grows([whole], [day(1)]).passed
    assert state_only_grows([whole], [day(1), day(2)]).blocks
    assert state_only_grows([replace(whole, total_before=8)], [day(1)]).blocks
    assert state_only_grows([replace(whole, checksum_before="c")], [day(1)]).blocks


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2018-03-09T07:59:59+00:00", "2018-03-07"),
        ("2018-03-09T08:00:00+00:00", "2018-03-08"),
        ("2018-03-10T00:30:00+00:00", "2018-03-08"),
        ("2018-03-09T09:30:00+02:00", "2018-03-07"),
    ],
)
def test_a_day_is_due_at_the_stated_hour_after_its_end(now: str, due: str) -> None:
    assert str(due_day(at(now), 8)) == due


def test_only_yesterday_itself_counts_and_only_where_days_are_published_daily() -> None:
    assert yesterday_is_published(day(8), 8, Publications(day(8), has_due=True, is_live=True)).passed
    late = yesterday_is_published(day(8), 8, Publications(day(7), has_due=False, is_live=True))
    assert not late.passed
    assert not late.blocks
    assert "2018-03-08 was to be published by 2018-03-09 08:00 UTC and is not" in late.message
    assert yesterday_is_published(day(8), 8, Publications(day(7), has_due=False, is_live=False)).passed

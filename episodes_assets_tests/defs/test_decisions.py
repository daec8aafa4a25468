"""Which days the sensors act on."""

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.definitions import defs
from episodes_assets.defs.decisions import (
    DAYS_PLANNED_AT_ONCE,
    Failures,
    Reported,
    days_to_fan_out,
    days_to_plan,
    days_to_publish,
    days_to_report,
    days_without_plan,
    newest_day_to_plan,
    wants_publication,
    why_none_is_published,
    why_not_planned,
)
from episodes_assets.defs.jobs import plan_day, publish_day
from episodes_assets.ledger.progress import Progress
from episodes_assets.results.publications import PublishedFrom
from episodes_assets_tests.support.system import day

NOW = dt.datetime(2018, 4, 1, tzinfo=dt.UTC)


def progress(number: int, succeeded: int = 5, held: int = 0, *, fanned_out: bool = True) -> Progress:
    waiting = 5 - succeeded - held
    return Progress(day(number), number, 5, waiting, 0, succeeded, held, fanned_out, "s")


def test_days_not_handed_out_or_not_finished_are_looked_at() -> None:
    days = [
        progress(1),
        progress(2, 3),
        progress(3, 0, fanned_out=False),
        progress(4, 5, fanned_out=False),
        progress(5, 4, held=1),
    ]
    assert days_to_fan_out(days) == [day(2), day(3), day(4)]


def test_finished_days_that_are_unpublished_or_published_from_an_older_plan() -> None:
    days = [progress(3), progress(1), progress(2), progress(4, 4), progress(5, 4, held=1)]
    plans = {day(1): PublishedFrom(1, "s", 0, ""), day(2): PublishedFrom(99, "s", 0, "")}
    assert days_to_publish(days, plans, {}, {}, NOW, limit=9) == [day(2), day(3)]
    assert days_to_publish(days, plans, {day(2): "run"}, {}, NOW, limit=9) == [day(3)]
    assert days_to_publish(days, plans, {}, {}, NOW, limit=1) == [day(2)]


def test_so_many_days_are_published_at_once_and_no_more() -> None:
    """Each tick, as a run of an earlier one may still wait in Dagster's queue."""
    days = [progress(number) for number in range(1, 31)]
    in_flight = {day(number): f"run {number}" for number in range(1, 11)}
    assert days_to_publish(days, {}, in_flight, {}, NOW, limit=10) == []
    assert "2018-03-11 waits for the runs of others" in why_none_is_published(days[9:], {}, in_flight, {})
    del in_flight[day(3)]
    assert days_to_publish(days, {}, in_flight, {}, NOW, limit=10) == [day(3)]
    # One run may work many days, and those of other days are of no matter.
    of_a_range = dict.fromkeys(map(day, range(1, 21)), "one run")
    others = {day(number): f"run {number}" for number in range(31, 60)}
    found = days_to_publish(days, {}, of_a_range | others, {}, NOW, limit=10)
    assert found == [day(number) for number in range(21, 30)]
    too_many = {day(number): f"run {number}" for number in range(1, 21)}
    assert days_to_publish(days, {}, too_many, {}, NOW, limit=10) == []


def test_planning_goes_before_publishing_in_dagsters_queue() -> None:
    of_jobs = {job.name: defs.resolve_job_def(job.name).tags for job in (plan_day, publish_day)}
    priorities = {name: int(tags.get("dagster/priority", "0")) for name, tags in of_jobs.items()}
    assert priorities["plan_day"] > priorities["publish_day"]


@pytest.mark.parametrize(
    ("published", "is_wanted"),
    [
        (PublishedFrom(1, "s", 2, "why"), False),
        (PublishedFrom(1, None, 2, "why"), False),  # from before snapshots were recorded
        (PublishedFrom(1, "another", 2, "why"), True),
        (PublishedFrom(1, "s", 3, "why"), True),
        (PublishedFrom(1, "s", 2, "another"), True),
        (PublishedFrom(2, "s", 2, "why"), True),
        (None, True),
    ],
)
def test_a_day_is_published_again_when_what_it_is_made_of_changes(
    published: PublishedFrom | None, is_wanted: bool
) -> None:
    of = replace(progress(1, 3), waiting=0, waived=2, decision="why")
    assert wants_publication(of, published) is is_wanted
    assert not wants_publication(replace(of, succeeded=2, held=1), published)


@pytest.mark.parametrize(
    ("count", "minutes", "is_tried"), [(1, 4, False), (1, 5, True), (3, 19, False), (3, 20, True)]
)
def test_a_day_that_fails_is_tried_again_ever_later(count: int, minutes: int, is_tried: bool) -> None:
    failures = {day(1): Failures(count, NOW - dt.timedelta(minutes=minutes))}
    found = days_to_publish([progress(1)], {}, {}, failures, NOW, limit=9)
    assert found == ([day(1)] if is_tried else [])


def test_a_day_that_always_fails_is_tried_every_six_hours() -> None:
    assert Failures(500, NOW).next_attempt == NOW + dt.timedelta(hours=6)


SOON, LATER = NOW + dt.timedelta(seconds=10), NOW + dt.timedelta(seconds=30)


def test_progress_is_reported_when_it_changed_and_is_due_and_no_run_reports_it() -> None:
    counts = {day(n): (5, n) for n in (1, 2, 3)}
    days, reported = days_to_report(counts, {}, {day(2)}, NOW, limit=9)
    assert days == [day(1), day(3)]
    moved = {**counts, day(3): (4, 4)}
    assert days_to_report(moved, reported, set(), SOON, limit=9)[0] == [day(2)]
    days, reported = days_to_report(moved, reported, set(), LATER, limit=9)
    assert days == [day(2), day(3)]
    assert days_to_report({}, reported, set(), LATER, limit=9) == ([], {})


def test_of_many_days_those_are_reported_that_waited_longest() -> None:
    counts = {day(n): (n,) for n in range(1, 6)}
    first, reported = days_to_report(counts, {}, set(), NOW, limit=2)
    second, reported = days_to_report(counts, reported, set(), NOW, limit=2)
    assert (first, second) == ([day(1), day(2)], [day(3), day(4)])
    moved = dict.fromkeys(counts, (0,))
    assert days_to_report(moved, reported, set(), LATER, limit=2)[0] == [day(5), day(1)]


def test_a_day_at_work_for_long_is_reported_a_bounded_number_of_times() -> None:
    """What the event log is to hold: a day that moves all the time, looked at every five seconds."""
    reported: dict[dt.date, Reported] = {}
    reports = 0
    for second in range(0, 24 * 3600, 5):
        now = NOW + dt.timedelta(seconds=second)
        days, reported = days_to_report({day(1): (second,)}, reported, set(), now, limit=9)
        reports += len(days)
    assert 150 < reports < 300


def test_what_finished_days_wait_for_is_named() -> None:
    days = [progress(3), progress(1), progress(2, 4)]
    failures = {day(3): Failures(2, NOW)}
    assert why_none_is_published(days, {}, {day(1): "abc"}, failures) == (
        "2018-03-01 waits for run abc; 2018-03-03 could not be published 2 times and is tried again at "
        "2018-04-01 00:10 UTC, or by `episodes run 2018-03-03`"
    )
    assert why_none_is_published([progress(2, 4)], {}, {}, {}) == "no finished day waits to be published"
    many = [progress(number) for number in range(1, 16)]
    waiting = why_none_is_published(many, {}, {day(number): "abc" for number in range(1, 16)}, {})
    assert waiting.endswith("2018-03-10 waits for run abc; and 5 more days wait")


@pytest.mark.parametrize(("time", "newest"), [("03-05T00:59:59", 3), ("03-05T01:00", 4), ("03-05T23:59", 4)])
def test_a_day_is_planned_an_hour_after_its_end(time: str, newest: int) -> None:
    assert newest_day_to_plan(dt.datetime.fromisoformat(f"2018-{time}+00:00")) == day(newest)


@pytest.mark.parametrize(
    ("newest", "tracked", "unplanned", "expected"),
    [
        (5, None, [], [5]),
        (0, None, [], []),  # before the first day
        (5, 5, [], []),
        (5, 9, [], []),
        (5, 2, [], [3, 4, 5]),
        (5, 2, [2, 1], [1, 2, 3, 4, 5]),
        (5, 5, [5], [5]),
        (90, 2, [], [*range(3, 3 + DAYS_PLANNED_AT_ONCE)]),
    ],
)
def test_the_days_since_the_newest_tracked_one_are_to_be_planned(
    newest: int, tracked: int | None, unplanned: list[int], expected: list[int]
) -> None:
    found = days_without_plan(
        day(newest), day(tracked) if tracked else None, [day(each) for each in unplanned]
    )
    assert found == [day(each) for each in expected]


_SOME_DAYS = st.sets(st.integers(1, 12).map(day))
_FAILURES = st.dictionaries(
    st.integers(1, 12).map(day),
    st.builds(
        Failures, st.integers(1, 40), st.integers(0, 3000).map(lambda m: NOW - dt.timedelta(minutes=m))
    ),
)


@given(st.integers(1, 12), _SOME_DAYS, _SOME_DAYS, _FAILURES)
def test_what_is_planned_is_in_order_and_nothing_is_in_its_way(
    first: int, with_input: set[dt.date], in_flight: set[dt.date], failures: dict[dt.date, Failures]
) -> None:
    wanted = [day(number) for number in range(first, 13)]
    found = days_to_plan(wanted, with_input, in_flight, failures, NOW)
    assert found == wanted[: len(found)]
    assert with_input >= set(found)
    assert not in_flight & set(found)
    failed = [each for each in found if each in failures]
    assert not failed or (found == failed[:1] and failures[failed[0]].next_attempt <= NOW)
    # It goes as far as it can.
    following = wanted[len(found)] if len(found) < len(wanted) else None
    if following and following in with_input and following not in in_flight:
        assert failed or following in failures


@given(
    arrivals=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    broken=st.dictionaries(st.integers(1, 12), st.integers(1, 3)),
    outages=st.sets(st.integers(0, 200)),
)
def test_whatever_ticks_are_missed_each_day_is_planned_once_and_in_order(
    arrivals: list[int], broken: dict[int, int], outages: set[int]
) -> None:
    """Drops come in any order; a run over a day that is broken fails, so many times; a tick is an hour."""
    last = len(arrivals)
    came = {day(number): tick for number, tick in enumerate(arrivals, 1)}
    left = {day(number): times for number, times in broken.items()}
    failures: dict[dt.date, Failures] = {}
    done: list[dt.date] = []
    launches = 0
    for tick in range(200 + 60):
        if tick in outages and tick < 200:
            continue
        now = NOW + dt.timedelta(hours=tick)
        wanted = days_without_plan(day(last), day(len(done)), [])
        days = days_to_plan(wanted, [each for each in came if came[each] <= tick], [], failures, now)
        launches += bool(days)
        if any(left.get(each) for each in days):
            left = {each: times - (each in days and times > 0) for each, times in left.items()}
            failures |= {
                each: Failures(failures[each].count + 1 if each in failures else 1, now) for each in days
            }
            continue
        failures = {each: failed for each, failed in failures.items() if each not in days}
        done += days
    assert done == [day(number) for number in range(1, last + 1)]
    assert launches <= last + sum(broken.values())


def test_what_a_day_waits_for_to_be_planned_is_said() -> None:
    failures = {day(1): Failures(2, NOW, dt.timedelta(days=1))}
    assert why_not_planned(day(1), "no drop", {day(1): "abc"}, failures) == "2018-03-01 waits for run abc"
    assert why_not_planned(day(1), "no drop", {}, failures) == "no drop"
    assert why_not_planned(day(1), "", {}, failures) == (
        "2018-03-01 could not be planned 2 times and is tried again after 2018-04-01 00:10 UTC, "
        "or by `episodes run 2018-03-01`"
    )
    assert why_not_planned(day(2), "", {}, failures) == "2018-03-02 is planned with the next run"


def test_a_day_that_cannot_be_planned_is_tried_once_a_day_in_the_end() -> None:
    assert Failures(500, NOW, dt.timedelta(days=1)).next_attempt == NOW + dt.timedelta(days=1)

"""Which days the sensors act on."""

import datetime as dt
from dataclasses import replace

import pytest

from episodes_assets.automation.decisions import (
    Failures,
    Told,
    days_to_fan_out,
    days_to_publish,
    days_to_report,
    wants_publication,
    why_none_is_published,
)
from episodes_assets.stores.ledger import Progress
from episodes_assets.stores.publications import PublishedFrom
from episodes_assets_tests.system import day

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
    days, told = days_to_report(counts, {}, {day(2)}, NOW, limit=9)
    assert days == [day(1), day(3)]
    moved = {**counts, day(3): (4, 4)}
    assert days_to_report(moved, told, set(), SOON, limit=9)[0] == [day(2)]
    days, told = days_to_report(moved, told, set(), LATER, limit=9)
    assert days == [day(2), day(3)]
    assert days_to_report({}, told, set(), LATER, limit=9) == ([], {})


def test_of_many_days_those_are_reported_that_waited_longest() -> None:
    counts = {day(n): (n,) for n in range(1, 6)}
    first, told = days_to_report(counts, {}, set(), NOW, limit=2)
    second, told = days_to_report(counts, told, set(), NOW, limit=2)
    assert (first, second) == ([day(1), day(2)], [day(3), day(4)])
    moved = dict.fromkeys(counts, (0,))
    assert days_to_report(moved, told, set(), LATER, limit=2)[0] == [day(5), day(1)]


def test_a_day_at_work_for_long_is_reported_a_bounded_number_of_times() -> None:
    """What the event log is to hold: a day that moves all the time, looked at every five seconds."""
    told: dict[dt.date, Told] = {}
    reports = 0
    for second in range(0, 24 * 3600, 5):
        now = NOW + dt.timedelta(seconds=second)
        days, told = days_to_report({day(1): (second,)}, told, set(), now, limit=9)
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

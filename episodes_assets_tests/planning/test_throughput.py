"""Throughput and expected end: what must hold for whatever was counted."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.planning.throughput import LEAST, RECENT, RecentWork, expected_end, jobs_per_second

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
AGES = st.timedeltas(min_value=dt.timedelta(seconds=-5), max_value=dt.timedelta(days=2))
JOBS = st.integers(min_value=0, max_value=10**8)
RATES = st.floats(min_value=0, max_value=1e9)


@given(JOBS, AGES)
def test_the_throughput_is_that_of_the_time_in_which_jobs_were_finished(jobs: int, age: dt.timedelta) -> None:
    rate = jobs_per_second(RecentWork(jobs, NOW - age), NOW)
    assert jobs / RECENT.total_seconds() <= rate <= jobs / LEAST.total_seconds()
    if LEAST <= age <= RECENT:
        assert abs(rate * age.total_seconds() - jobs) <= 1e-6 * max(jobs, 1)


@given(JOBS, AGES, AGES)
def test_the_same_work_in_more_time_is_slower(jobs: int, one: dt.timedelta, other: dt.timedelta) -> None:
    short, long = sorted((one, other))
    slow, fast = (jobs_per_second(RecentWork(jobs, NOW - age), NOW) for age in (long, short))
    assert slow <= fast


@given(JOBS, RATES)
def test_no_end_is_expected_before_now_or_without_a_throughput(unfinished: int, rate: float) -> None:
    end = expected_end(unfinished, rate, NOW)
    assert end is None or end >= NOW
    if unfinished == 0 or rate == 0:
        assert end is None


@given(JOBS.filter(bool), st.integers(0, 10**6), st.floats(0.1, 1e6))
def test_more_jobs_end_later_and_at_the_throughput(unfinished: int, more: int, rate: float) -> None:
    end, later = expected_end(unfinished, rate, NOW), expected_end(unfinished + more, rate, NOW)
    assert end is not None
    assert later is not None
    assert later >= end
    assert abs((end - NOW).total_seconds() * rate - unfinished) <= 1e-4 * unfinished + rate * 1e-5


def test_nothing_finished_is_no_throughput() -> None:
    assert jobs_per_second(None, NOW) == 0
    assert expected_end(10**12, 1e-9, NOW) is None

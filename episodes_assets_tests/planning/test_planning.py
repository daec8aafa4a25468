"""Planning agrees with its row-wise reference on every column, whatever the drop."""

import datetime as dt
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes_assets.planning.episode_set import EpisodeSet, TrackedEpisodes, state_checksum
from episodes_assets.planning.jobs import newly_tracked, plan_checksum, plan_jobs
from episodes_assets_tests.support.planning_reference import newly_tracked_reference, plan_jobs_reference

DAY = dt.date(2018, 3, 10)

# Few ids, so that duplicates, ties, and ids that are tracked or viewed but not in the drop happen.
epids = st.integers(0, 12)
dates = st.one_of(
    st.none(),
    st.sampled_from([DAY - dt.timedelta(days=n) for n in (-1, 0, 1, 2, 700)]),
    st.dates(dt.date(1900, 1, 1), dt.date(2199, 12, 31)),
)
rows = st.lists(st.tuples(epids, st.sampled_from([0, 0, 1, 2]), dates, dates), max_size=40)
id_sets = st.sets(st.integers(0, 400), max_size=200)


def frame(values: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["epid", "algorithm_id", "premier_date", "start_date"]
    drop = pd.DataFrame(values, columns=columns)
    return drop.astype(
        {
            "epid": "int64",
            "algorithm_id": "int16",
            "premier_date": "datetime64[s]",
            "start_date": "datetime64[s]",
        }
    )


def ids(values: Collection[int]) -> np.ndarray:
    return np.array(list(values), dtype=np.int64)


def episodes(values: set[int]) -> EpisodeSet:
    return EpisodeSet.of(ids(values))


@settings(max_examples=150)
@given(rows, id_sets | st.sets(epids), id_sets | st.sets(epids))
def test_it_agrees_with_the_reference(
    values: list[tuple[Any, ...]], viewed: set[int], tracked: set[int]
) -> None:
    drop = frame(values)
    jobs = plan_jobs(drop, episodes(viewed), episodes(tracked), DAY)
    assert list(jobs.columns) == ["epid", "algorithm_id", "window_start"]
    assert [str(dtype) for dtype in jobs.dtypes] == ["int64", "int16", "datetime64[s]"]
    found = zip(jobs["epid"], jobs["algorithm_id"], jobs["window_start"].dt.date, strict=True)
    assert sorted(found) == plan_jobs_reference(drop, viewed, tracked, DAY)
    assert jobs[["epid", "algorithm_id"]].apply(tuple, axis=1).is_monotonic_increasing or jobs.empty
    new = newly_tracked(drop, episodes(tracked), DAY)
    assert new.tolist() == newly_tracked_reference(drop, tracked, DAY)


@pytest.mark.long
@settings(max_examples=100)
@given(rows, st.sets(epids), st.sets(epids), st.randoms())
def test_the_order_of_rows_and_ids_does_not_matter(
    values: list[tuple[Any, ...]], viewed: set[int], tracked: set[int], random: Any
) -> None:
    unique = list({(row[0], row[1]): row for row in values}.values())
    shuffled = random.sample(unique, len(unique))
    one = plan_jobs(frame(unique), episodes(viewed), episodes(tracked), DAY)
    viewed_backwards, tracked_backwards = (EpisodeSet.of(ids(s)[::-1].repeat(2)) for s in (viewed, tracked))
    other = plan_jobs(frame(shuffled), viewed_backwards, tracked_backwards, DAY)
    pd.testing.assert_frame_equal(one, other)
    assert plan_checksum(one) == plan_checksum(other)


@given(rows, st.sets(epids))
def test_a_day_run_twice_tracks_nothing_more(values: list[tuple[Any, ...]], tracked: set[int]) -> None:
    new = newly_tracked(frame(values), episodes(tracked), DAY)
    assert not newly_tracked(frame(values), episodes(tracked).plus(new), DAY).size


@given(st.lists(st.tuples(epids, st.integers(0, 5)), unique_by=lambda pair: pair[0]), st.sets(epids))
def test_the_state_as_of_any_day_is_a_filter(state: list[tuple[int, int]], added: set[int]) -> None:
    epids_, ages = ids([epid for epid, _ in state]), ids([age for _, age in state])
    tracked = TrackedEpisodes(epids_, np.datetime64(DAY, "D") - ages)
    asked = np.arange(-1, 14)
    for back in range(7):
        expected = {epid for epid, age in state if age >= back} | added
        as_of = tracked.as_of(DAY - dt.timedelta(days=back)).plus(ids(added))
        assert as_of.contains(asked).tolist() == [epid in expected for epid in asked.tolist()]


@pytest.mark.long
@settings(max_examples=100)
@given(rows, st.sets(epids), st.sets(epids), epids)
def test_a_drop_planned_in_parts_is_planned_whole(
    values: list[tuple[Any, ...]], viewed: set[int], tracked: set[int], cut: int
) -> None:
    drop = frame(sorted(values, key=lambda row: row[:2]))
    parts = [drop[drop["epid"] < cut], drop[drop["epid"] >= cut]]
    planned = [plan_jobs(part, episodes(viewed), episodes(tracked), DAY) for part in parts]
    whole = plan_jobs(drop, episodes(viewed), episodes(tracked), DAY)
    pd.testing.assert_frame_equal(pd.concat(planned, ignore_index=True), whole)


def test_an_untracked_episode_catches_up_from_its_premiere_and_then_from_its_start_date() -> None:
    drop = frame([(1, 0, dt.date(2017, 1, 1), DAY), (1, 1, dt.date(2017, 1, 1), DAY)])
    first = plan_jobs(drop, episodes(set()), episodes(set()), DAY)
    assert first["window_start"].dt.date.tolist() == [dt.date(2017, 1, 1), DAY]
    assert plan_jobs(drop, episodes(set()), episodes({1}), DAY).empty
    assert plan_jobs(drop, episodes({1}), episodes({1}), DAY)["window_start"].dt.date.tolist() == [DAY, DAY]


def test_checksums_depend_on_every_column_and_on_the_past() -> None:
    base = plan_jobs(frame([(1, 0, DAY, DAY)]), episodes({1}), episodes(set()), DAY)
    for other in (
        base.assign(epid=2),
        base.assign(algorithm_id=np.int16(1)),
        base.assign(window_start=base["window_start"] - pd.Timedelta(days=1)),
    ):
        assert plan_checksum(other) != plan_checksum(base)
    assert state_checksum("a", ids({1})) != state_checksum("b", ids({1}))
    assert state_checksum("a", ids({1})) != state_checksum("a", ids({2}))

"""A sample is of episodes with all their rows, so its jobs are the plan's jobs restricted to it."""

import datetime as dt
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from episodes_assets.input.sample import sample_drop
from episodes_assets.lab import sampling
from episodes_assets.lab.contents import jobs_checksum
from episodes_assets.lab.sampling import restrict_days, restrict_plan
from episodes_assets.ledger.copies import PlanRows
from episodes_assets.planning.drop import ACCEPTED, QUARANTINED, to_table, validate_drop
from episodes_assets.planning.episode_set import EpisodeSet, state_checksum
from episodes_assets.planning.jobs import into_chunks, newly_tracked, plan_jobs

DAY = dt.date(2018, 3, 5)
KEY = b"k" * 32
NONE = EpisodeSet.of(np.array([], np.int64))


@pytest.fixture(scope="module")
def catalogues() -> list[pa.Table]:
    """Accepted and refused rows."""
    validated = validate_drop(sample_drop(600, 1, DAY))
    tables = [to_table(validated.accepted, ACCEPTED), to_table(validated.quarantined, QUARANTINED)]
    return [table.select(["epid", "series", *(n for n in table.column_names if n not in ("epid", "series"))])
            for table in tables]  # fmt: skip


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_a_share_is_of_whole_series(catalogues: list[pa.Table], share: float) -> None:
    chosen = sampling.by_share(catalogues, share, KEY)
    assert (np.diff(chosen) > 0).all()
    accepted = catalogues[0].to_pandas()
    by_series = accepted.assign(chosen=accepted["epid"].isin(chosen)).groupby("series")["chosen"]
    # A refused row may lack its series' name alone, so it is the accepted ones that go together.
    assert by_series.nunique().eq(1).mean() > 0.9
    assert by_series.first().mean() == pytest.approx(share, abs=0.15)
    assert list(sampling.by_share(catalogues, share, KEY)) == list(chosen)
    assert list(sampling.by_share(catalogues, share, b"other" * 6 + b"xx")) != list(chosen)


def test_the_whole_share_has_all_episodes(catalogues: list[pa.Table]) -> None:
    there = {epid for table in catalogues for epid in table["epid"].to_pylist() if epid is not None}
    assert set(sampling.by_share(catalogues, 1.0, KEY).tolist()) == there


def test_episodes_without_a_series_are_chosen_one_by_one() -> None:
    drop = pa.table({"epid": pa.array(range(2_000)), "series": pa.nulls(2_000, pa.string())})
    assert len(sampling.by_share([drop], 0.25, KEY)) == pytest.approx(500, abs=80)


def test_series_are_chosen_by_name(catalogues: list[pa.Table]) -> None:
    chosen, found = sampling.by_series(catalogues, ["Series 3", "Series 7", "no such"])
    assert found == {"Series 3", "Series 7"}
    accepted = catalogues[0].to_pandas()
    assert set(accepted.loc[accepted["series"].isin(found), "epid"]) <= set(chosen.tolist())


@pytest.mark.parametrize(
    "choose",
    [
        lambda drops: sampling.by_share(drops, 1.0, KEY),
        lambda drops: sampling.by_series(drops, ["many"]),
        sampling.all_episodes,
    ],
)
def test_memory_does_not_grow_with_the_days(choose: Callable[[Iterator[pa.Table]], object]) -> None:
    """Neither what Arrow has, nor what numpy has."""
    rows, days = 6_000, 30
    base = pa.table({"epid": pa.array(range(rows), pa.int64()), "series": pa.array(["many"] * rows)})
    of_a_day = 8 * rows
    taken: list[int] = []

    def drops() -> Iterator[pa.Table]:
        for _ in range(days):
            taken.append(pa.total_allocated_bytes())
            yield base.take(pa.array(np.arange(rows)))

    choose(drops())  # what is kept for ever, such as code, is not of interest
    taken.clear()
    tracemalloc.start()
    try:
        choose(drops())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 15 * of_a_day
    assert max(taken) - max(taken[:5]) < of_a_day


def test_jobs_of_a_sample_are_those_of_the_plan() -> None:
    accepted = validate_drop(sample_drop(600, 1, DAY)).accepted
    epids = np.unique(accepted["epid"].to_numpy())
    viewed, tracked = EpisodeSet.of(epids[::2]), EpisodeSet.of(epids[::3])
    chosen = epids[np.random.default_rng(3).random(len(epids)) < 0.3]
    whole = plan_jobs(accepted, viewed, tracked, DAY)
    part = plan_jobs(accepted[accepted["epid"].isin(chosen)], viewed, tracked, DAY)
    rows = rows_of(whole)
    own = restrict_plan(rows, chosen)
    assert jobs_checksum(own.jobs) == jobs_checksum(table_of(part))
    assert own.jobs["position"].to_pylist() == list(range(len(part)))
    assert own.outcomes["position"].to_pylist() == list(range(len(part)))
    # Each outcome is still its job's, and each job still in its chunk.
    assert own.outcomes["metrics"].to_pylist() == [str(epid) for epid in own.jobs["epid"].to_pylist()]
    for chunk in own.chunks.to_pylist():
        begin, end = chunk["first_position"], chunk["first_position"] + chunk["jobs"]
        before = next(each for each in rows.chunks.to_pylist() if each["chunk"] == chunk["chunk"])
        was = rows.jobs.slice(before["first_position"], before["jobs"])["epid"].to_pylist()
        assert set(own.jobs.slice(begin, end - begin)["epid"].to_pylist()) <= set(was)
    assert sum(own.chunks["jobs"].to_pylist()) == len(own.jobs)
    assert len(own.batches) == 0


def test_without_a_sample_a_plan_stays_as_it_is() -> None:
    accepted = validate_drop(sample_drop(60, 1, DAY)).accepted
    rows = rows_of(plan_jobs(accepted, EpisodeSet.of(accepted["epid"].to_numpy()), NONE, DAY))
    assert restrict_plan(rows, None) == rows


def test_an_episode_set_that_is_empty_has_no_job() -> None:
    accepted = validate_drop(sample_drop(60, 1, DAY)).accepted
    rows = rows_of(plan_jobs(accepted, EpisodeSet.of(accepted["epid"].to_numpy()), NONE, DAY))
    own = restrict_plan(rows, np.array([], np.int64))
    assert [len(table) for table in vars(own).values()] == [0] * 5


def test_rows_without_an_episode_are_of_no_sample() -> None:
    column = pa.array([None, 1, 2, 0, 3], pa.int64())
    assert sampling.is_in(column, np.array([0, 1, 3])).tolist() == [False, True, False, True, True]
    assert sampling.is_in(column, None).all()
    assert not sampling.is_in(column, np.array([], np.int64)).any()


def test_newly_tracked_episodes_of_a_sample_are_those_of_the_day() -> None:
    accepted = validate_drop(sample_drop(600, 1, DAY)).accepted
    epids = np.unique(accepted["epid"].to_numpy())
    chosen = epids[::4]
    tracked = EpisodeSet.of(epids[::3])
    whole = newly_tracked(accepted, tracked, DAY)
    part = newly_tracked(accepted[accepted["epid"].isin(chosen)], tracked, DAY)
    assert list(part) == list(np.intersect1d(whole, chosen))


def test_days_of_which_episodes_are_left_out_are_chained_anew() -> None:
    first = dt.date(2018, 3, 1)
    days = [first + dt.timedelta(days=n) for n in range(3)]
    added = [np.array([1, 2]), np.array([5, 9]), np.array([3])]
    recorded = chain(days, added)
    kept = [added[0], np.array([9]), np.array([], np.int64)]
    found = restrict_days(episodes_of(days, kept), recorded, days[1])
    assert found == chain(days, kept)
    assert restrict_days(episodes_of(days, added), recorded, days[0]) == recorded


def chain(days: list[dt.date], added: list[np.ndarray]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    previous, total = None, 0
    for day, epids in zip(days, added, strict=True):
        total += len(epids)
        checksum = state_checksum(previous or "", epids.astype(np.int64))
        rows.append({"day": day, "origin": "day", "newly_tracked": len(epids), "total": total,
                     "checksum": checksum, "previous_checksum": previous})  # fmt: skip
        previous = checksum
    return rows


def episodes_of(days: list[dt.date], added: list[np.ndarray]) -> pa.Table:
    return pa.table(
        {
            "epid": pa.array(np.concatenate(added).astype(np.int64)),
            "tracked_on": pa.array(
                [day for day, own in zip(days, added, strict=True) for _ in own], pa.date32()
            ),
        }
    )


def table_of(jobs: pd.DataFrame) -> pa.Table:
    return pa.table(
        {
            "position": pa.array(np.arange(len(jobs)), pa.int32()),
            "epid": pa.array(jobs["epid"]),
            "algorithm_id": pa.array(jobs["algorithm_id"]),
            "window_start": pa.array(jobs["window_start"].to_numpy().astype("datetime64[D]")),
        }
    )


def rows_of(jobs: pd.DataFrame) -> PlanRows:
    ordered, chunks = into_chunks(jobs, DAY, 50)
    table = table_of(ordered)
    return PlanRows(
        table,
        pa.Table.from_pandas(chunks, preserve_index=False),
        pa.table({"position": table["position"], "metrics": pa.array(map(str, table["epid"].to_pylist()))}),
        pa.table({"position": table["position"].slice(0, 0)}),
        pa.table({"plan_id": pa.array([1]), "first_position": pa.array([0]), "chunk": pa.array([0]),
                  "jobs": pa.array([1]), "seconds": pa.array([1.0])}),
    )  # fmt: skip


def test_the_slowest_chunks_are_those_whose_batches_took_longest() -> None:
    batches = pa.table({"plan_id": [1, 1, 1, 2], "chunk": [0, 1, 0, 0], "seconds": [1.0, 2.5, 1.0, 2.5]})
    assert sampling.slowest_chunks(batches, 2) == [(1, 1), (2, 0)]
    assert sampling.slowest_chunks(batches, 9) == [(1, 1), (2, 0), (1, 0)]

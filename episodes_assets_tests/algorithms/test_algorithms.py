"""What the three algorithms return, against plain counting, and at the edges."""

import datetime as dt
import json
import statistics
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes_assets.algorithms.base import Algorithm, Metric
from episodes_assets.algorithms.compute import BadAlgorithm, MissingValue, compute_outcomes
from episodes_assets.algorithms.registry import get_registry, load

DAY = dt.date(2018, 3, 10)
MIDNIGHT = dt.datetime(2018, 3, 10)  # noqa: DTZ001  UTC without zone, as they come from the store


def jobs_frame(rows: list[tuple[int, int, dt.date]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["epid", "algorithm_id", "window_start"])
    return frame.astype({"epid": "int64", "algorithm_id": "int16", "window_start": "datetime64[s]"}).assign(
        day=pd.Timestamp(DAY).as_unit("s")
    )


def viewings_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    """As the store reads them: ordered by epid and time, those of the same time in any order."""
    ordered = [
        (epid, viewer, dt.datetime.combine(at, dt.time()), *rest)
        for epid, viewer, at, *rest in sorted(rows, key=lambda row: (row[0], row[2]))
    ]
    schema = pa.schema(
        {
            "epid": pa.int64(),
            "viewer_id": pa.int64(),
            "viewed_on": pa.timestamp("s"),
            "seconds_watched": pa.int32(),
            "completed": pa.bool_(),
        }
    )
    columns = zip(*ordered, strict=True) if ordered else [[]] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def compute(jobs: list[tuple[int, int, dt.date]], viewings: list[tuple[Any, ...]]) -> list[Any]:
    outcomes = compute_outcomes(jobs_frame(jobs), viewings_table(viewings))
    return [json.loads(text) for text in outcomes.metrics]


def reference(job: tuple[int, int, dt.date], viewings: list[tuple[Any, ...]]) -> dict[str, Any]:
    """The metrics of one job, viewing by viewing."""
    epid, algorithm_id, window_start = job
    own = [v for v in viewings if v[0] == epid and window_start <= v[2].date() <= DAY]
    seconds = [min(max(v[3] or 0, 0), 86_400) for v in own]
    if algorithm_id == 0:
        return {
            "views": len(own),
            "viewers": len({v[1] for v in own}),
            "seconds_watched": sum(seconds),
            "completed_views": sum(bool(v[4]) for v in own),
        }
    if algorithm_id == 1:
        ages = [(DAY - v[2].date()).days for v in own]
        first = max(window_start, DAY - dt.timedelta(days=13))
        days = (DAY - first).days + 1
        counts = [ages.count(days - 1 - n) for n in range(days)]
        slope = float(np.polyfit(range(days), counts, 1)[0]) if days > 1 else None
        return {
            "views_last_7_days": sum(age < 7 for age in ages),
            "views_previous_7_days": sum(7 <= age < 14 for age in ages),
            "daily_slope": slope,
        }
    longest = max(seconds, default=0)
    shares = [s / longest for s in seconds] if longest else []
    return {
        "share_completed": sum(bool(v[4]) for v in own) / len(own) if own else None,
        "mean_share": statistics.fmean(shares) if shares else None,
        "median_share": statistics.median(shares) if shares else None,
    }


viewing = st.tuples(
    st.integers(-2, 2),
    st.integers(1, 5),
    st.datetimes(MIDNIGHT - dt.timedelta(days=20), MIDNIGHT + dt.timedelta(days=2)),
    st.none() | st.integers(-5, 100) | st.just(2_000_000_000),
    st.none() | st.booleans(),
)
window_starts = st.dates(DAY - dt.timedelta(days=400), DAY) | st.dates(DAY - dt.timedelta(days=3), DAY)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(-3, 2), st.integers(0, 2), window_starts),
        max_size=12,
        unique_by=lambda job: job[:2],
    ),
    st.lists(viewing, max_size=40),
)
def test_many_jobs_at_once_agree_with_one_by_one(
    jobs: list[tuple[int, int, dt.date]], viewings: list[tuple[Any, ...]]
) -> None:
    for job, found in zip(jobs, compute(jobs, viewings), strict=True):
        expected = reference(job, viewings)
        assert list(found) == list(get_registry().by_id[job[1]].columns)
        for name, value in expected.items():
            if value is None:
                assert found[name] is None
            else:
                assert found[name] == pytest.approx(value, abs=1e-6)


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(viewing, max_size=30), st.randoms())
def test_neither_the_order_of_viewings_nor_the_company_changes_a_digit(
    viewings: list[tuple[Any, ...]], random: Any
) -> None:
    start = DAY - dt.timedelta(days=10)
    jobs = [(epid, algorithm, start) for epid in (-1, 0, 1) for algorithm in (0, 1, 2)]
    together = compute(jobs, viewings)
    shuffled = random.sample(viewings, len(viewings))
    assert [compute([job], shuffled)[0] for job in jobs] == together


def test_a_viewing_belongs_to_the_utc_date_it_begins_on() -> None:
    second = dt.timedelta(seconds=1)
    edges = [
        MIDNIGHT - second,
        MIDNIGHT,
        MIDNIGHT + dt.timedelta(days=1) - second,
        MIDNIGHT + dt.timedelta(days=1),
    ]
    viewings = [(1, n, at, 10, True) for n, at in enumerate(edges)]
    assert compute([(1, 0, DAY)], viewings)[0]["views"] == 2


def test_absurd_seconds_count_as_a_view_within_bounds() -> None:
    viewings = [(1, 1, MIDNIGHT, -7, False), (1, 1, MIDNIGHT, 2_000_000_000, False)]
    found = compute([(1, 0, DAY)], viewings)[0]
    assert found == {"views": 2, "viewers": 1, "seconds_watched": 86_400, "completed_views": 0}


def test_a_wrong_algorithm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Algorithm(
        algorithm_id=0,
        name="wrong",
        version="1",
        description="",
        columns={"x": Metric.INTEGER},
        compute=lambda _v, jobs: jobs,
    )
    monkeypatch.setattr("episodes_assets.algorithms.compute.load", lambda _: wrong)
    with pytest.raises(BadAlgorithm, match="wrong returned"):
        compute([(1, 0, DAY)], [])


@pytest.mark.parametrize("value", [1e303, -1e303, np.inf])
def test_a_number_that_no_json_has_is_refused(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Rounding makes a very large one infinite."""
    made = Algorithm(
        algorithm_id=0,
        name="large",
        version="1",
        description="",
        columns={"x": Metric.REAL},
        compute=lambda _v, jobs: pd.DataFrame({"x": np.full(len(jobs), value)}),
        may_be_missing=("x",),
    )
    monkeypatch.setattr("episodes_assets.algorithms.compute.load", lambda _: made)
    with pytest.raises(MissingValue, match="large returned a missing or infinite x for 1 of 1 jobs"):
        compute([(1, 0, DAY)], [])


def test_every_module_can_be_used_and_no_column_occurs_twice() -> None:
    registry = get_registry()
    assert registry.problems == ()
    assert [algorithm.name for algorithm in registry.by_id.values()] == ["reach", "momentum", "retention"]
    columns = [column for algorithm in registry.by_id.values() for column in algorithm.columns]
    assert len(columns) == len(set(columns))
    for algorithm_id, declared in registry.by_id.items():
        assert load(algorithm_id).version == declared.version

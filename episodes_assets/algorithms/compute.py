"""Runs the algorithms of a micro-batch: many jobs, one set of viewings, whole columns.

It checks what algorithms return. Reading the viewings is `lake/viewings.py`; limits of time and memory are
`worker/compute.py`.
"""

import itertools
import json
import time
import traceback
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.algorithms.base import MAX_SECONDS_WATCHED, Algorithm, Metric
from episodes_assets.algorithms.registry import AlgorithmError, load, summarize
from episodes_assets.planning.viewings import row_numbers

REAL_DECIMALS = 6


class AlgorithmFailed(AlgorithmError):
    """An algorithm raised something, whatever it was."""


class BadAlgorithm(Exception):
    """An algorithm returned something else than it declared."""


class MissingValue(BadAlgorithm):
    """An algorithm returned no value, or an infinite one, where there must be one."""


@dataclass(frozen=True)
class Computed:
    """What came of many jobs, in their order.

    Attributes:
        metrics: Of each a JSON object, as text in one line.
        versions: The version of its algorithm.
        seconds: Its share of what its algorithm took for all of them.
    """

    metrics: npt.NDArray[np.object_]
    versions: npt.NDArray[np.object_]
    seconds: npt.NDArray[np.float64]


def compute_outcomes(jobs: pd.DataFrame, viewings: pa.Table) -> Computed:
    """The metrics of many jobs.

    Args:
        jobs: `epid` (int64), `algorithm_id` (int), `window_start` and `day`
            (datetime64[s]).
        viewings: Ordered by `epid` and `viewed_on`: `epid` (int64), `viewer_id` (int64, or text, for which
            algorithms get a number that tells viewers of one call apart), `viewed_on` (timestamp[s], the UTC
            date), `seconds_watched` (int, may be missing or absurd), `completed` (bool); all but `epid` and
            `viewed_on` may be missing.

    Raises:
        BadAlgorithm: If an algorithm does not return what it declares.
        AlgorithmUnavailable: If its module does not import.
        AlgorithmFailed: If an algorithm raises anything else.
    """
    clean = _clean(viewings)
    epids = viewings["epid"].to_numpy()
    begins = np.flatnonzero(np.diff(epids, prepend=epids[:1] - 1))
    episodes = _Episodes(pd.Index(epids[begins]), begins, np.append(begins[1:], len(epids)))
    algorithm_ids = jobs["algorithm_id"].to_numpy()
    found = Computed(np.empty(len(jobs), object), np.empty(len(jobs), object), np.zeros(len(jobs)))
    for algorithm_id in np.unique(algorithm_ids).tolist():
        own = np.flatnonzero(algorithm_ids == algorithm_id)
        began = time.perf_counter()
        algorithm = load(algorithm_id)
        found.metrics[own] = _compute_one(algorithm, jobs.iloc[own], episodes, clean)
        found.versions[own] = algorithm.version
        found.seconds[own] = (time.perf_counter() - began) / len(own)
    return found


@dataclass(frozen=True)
class _Episodes:
    """Where the viewings of each episode are, ordered by time.

    Attributes:
        epids: The episodes.
        begins: The first row of each.
        ends: The row after its last one.
    """

    epids: pd.Index
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


def _clean(viewings: pa.Table) -> pd.DataFrame:
    """Bring what other systems wrote into the shape algorithms are promised."""
    seconds = pc.fill_null(viewings["seconds_watched"], 0).to_numpy()
    columns = {
        "viewer_id": _viewers(viewings["viewer_id"]),
        "viewed_on": viewings["viewed_on"].to_numpy(),
        "seconds_watched": seconds.clip(0, MAX_SECONDS_WATCHED).astype(np.int64, copy=False),
        "completed": pc.fill_null(viewings["completed"], False).to_numpy(),  # noqa: FBT003
    }
    return pd.DataFrame(columns, copy=False)


def _viewers(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number for each viewer, other than that of those who are not named: they count as one viewer."""
    if pa.types.is_string(ids.type):
        codes = ids.dictionary_encode().combine_chunks().indices if len(ids) else pa.array([], pa.int64())
        return np.asarray(pc.fill_null(codes.cast(pa.int64()), -1).to_numpy())
    unnamed = -1
    if ids.null_count and pc.any(pc.equal(ids, unnamed)).as_py():
        lowest = int(pc.min(ids).as_py())
        unnamed = lowest - 1 if lowest > np.iinfo(np.int64).min else _first_free(ids)
    return np.asarray(pc.fill_null(ids, unnamed).to_numpy())


def _first_free(ids: pa.ChunkedArray) -> int:
    taken = set(ids.unique().to_pylist())
    return next(number for number in itertools.count() if number not in taken)


def _compute_one(
    algorithm: Algorithm, jobs: pd.DataFrame, episodes: _Episodes, clean: pd.DataFrame
) -> list[str]:
    # An algorithm has at most one job for each episode.
    job = pd.Index(jobs["epid"]).get_indexer(episodes.epids)
    is_asked = job >= 0
    job, starts, ends = job[is_asked], episodes.begins[is_asked], episodes.ends[is_asked]
    if (np.diff(job) < 0).any():
        order = np.argsort(job)
        job, starts, ends = job[order], starts[order], ends[order]
    first, last = jobs["window_start"].to_numpy()[job], jobs["day"].to_numpy()[job]
    viewed_on = clean["viewed_on"].to_numpy()
    starts, ends = _inside(viewed_on, starts, ends, first, last)
    counts = ends - starts
    if len(job) and (starts[1:] == ends[:-1]).all():
        rows = clean.iloc[starts[0] : ends[-1]].reset_index(drop=True)
    else:
        rows = clean.take(row_numbers(starts, counts)).reset_index(drop=True)
    rows.insert(0, "job", np.repeat(job, counts))
    return _compute_texts(algorithm, rows, jobs[["window_start", "day"]].reset_index(drop=True))


def _inside(
    viewed_on: npt.NDArray[np.datetime64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    first: npt.NDArray[np.datetime64],
    last: npt.NDArray[np.datetime64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows of each episode whose dates lie in its window: as they are ordered, those between two."""
    reaches_out = np.flatnonzero((viewed_on[starts] < first) | (viewed_on[ends - 1] > last))
    if not len(reaches_out):
        return starts, ends
    begins, counts = starts[reaches_out], ends[reaches_out] - starts[reaches_out]
    dates = viewed_on[row_numbers(begins, counts)]
    edges = np.cumsum(counts) - counts
    too_early = np.add.reduceat(dates < np.repeat(first[reaches_out], counts), edges, dtype=np.int64)
    too_late = np.add.reduceat(dates > np.repeat(last[reaches_out], counts), edges, dtype=np.int64)
    starts, ends = starts.copy(), ends.copy()
    starts[reaches_out] += too_early
    ends[reaches_out] -= too_late
    return starts, np.maximum(starts, ends)


def _compute_texts(algorithm: Algorithm, viewings: pd.DataFrame, jobs: pd.DataFrame) -> list[str]:
    """The metrics of an algorithm's jobs as JSON.

    All that touches what an algorithm makes is in here, so that no class of its module gets any further: a
    worker that unpickled one would import the module.
    """
    try:
        metrics = algorithm.compute(viewings, jobs)
        _require_declared(metrics, algorithm, jobs)
        return _to_json(metrics, algorithm)
    except BadAlgorithm:
        raise
    except BaseException as error:  # noqa: BLE001  it may raise anything, SystemExit included
        trace = "".join(traceback.format_exception(error))
        raise AlgorithmFailed(summarize(error), trace) from None


def _require_declared(metrics: pd.DataFrame, algorithm: Algorithm, jobs: pd.DataFrame) -> None:
    if list(metrics.columns) != list(algorithm.columns) or not metrics.index.equals(pd.RangeIndex(len(jobs))):
        raise BadAlgorithm(
            f"{algorithm.name} returned {list(metrics.columns)} for {len(metrics)} jobs; declared "
            f"are {list(algorithm.columns)} for {len(jobs)}"
        )


def _to_json(metrics: pd.DataFrame, algorithm: Algorithm) -> list[str]:
    columns = [_json_numbers(metrics[name], name, algorithm) for name in algorithm.columns]
    shape = "{" + ", ".join(f"{json.dumps(name)}: %s" for name in algorithm.columns) + "}"
    return [shape % row for row in zip(*columns, strict=True)]


def _json_numbers(values: pd.Series, name: str, algorithm: Algorithm) -> list[str]:
    numbers = pd.to_numeric(values)
    if algorithm.columns[name] is Metric.REAL:
        # Rounded, so that no machine's last bit shows in a published row; + 0.0 has no minus zero. To round a
        # number of more than about 1.8e302 makes it infinite.
        with np.errstate(over="ignore"):
            real = numbers.to_numpy(dtype=np.float64, na_value=np.nan).round(REAL_DECIMALS) + 0.0
        missing, infinite = np.isnan(real), np.isinf(real)
        texts = [repr(number) for number in real.tolist()]
    else:
        missing, infinite = numbers.isna().to_numpy(), np.zeros(len(numbers), dtype=np.bool_)
        texts = [str(number) for number in numbers.astype("Int64").fillna(0).tolist()]
    refused = infinite if name in algorithm.may_be_missing else infinite | missing
    if refused.any():
        raise MissingValue(
            f"{algorithm.name} returned a missing or infinite {name} for {int(refused.sum())} of "
            f"{len(values)} jobs; it may be missing only in {list(algorithm.may_be_missing)}"
        )
    for row in np.flatnonzero(missing):
        texts[row] = "null"
    return texts

"""Run the algorithms of a micro-batch: many jobs, one set of viewings, whole columns."""

import itertools
import json
import time
import traceback

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.algorithms.base import MAX_SECONDS_WATCHED, Algorithm, Metric
from episodes_assets.algorithms.registry import AlgorithmError, load, summarize

REAL_DECIMALS = 6


class AlgorithmFailed(AlgorithmError):
    """An algorithm raised something, whatever it was."""


class BadAlgorithm(Exception):
    """An algorithm returned something else than it declared."""


class MissingValue(BadAlgorithm):
    """An algorithm returned no value, or an infinite one, where there must be one."""


def compute_outcomes(jobs: pd.DataFrame, viewings: pa.Table) -> pd.DataFrame:
    """The metrics of many jobs.

    Args:
        jobs: Unique index; `epid` (int64), `algorithm_id` (int), `window_start` and `day`
            (datetime64[s]).
        viewings: Ordered by `epid` and `viewed_at`: `epid` (int64), `viewer_id` (int64, or text, for which
            algorithms get a number that tells viewers of one call apart), `viewed_at` (timestamp, UTC),
            `seconds_watched` (int, may be missing or absurd), `completed` (bool); all but `epid` and
            `viewed_at` may be missing.

    Returns:
        The jobs' index with `metrics` (a JSON object as text), `algorithm_version` and `seconds`: a
        job's share of what its algorithm took for all of them.

    Raises:
        BadAlgorithm: If an algorithm does not return what it declares.
        AlgorithmUnavailable: If its module does not import.
        AlgorithmFailed: If an algorithm raises anything else.
    """
    clean = _clean(viewings)
    begins = np.flatnonzero(np.diff(clean["epid"], prepend=-1))
    episodes = clean["epid"][begins]
    episode_of = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(clean["epid"])))
    parts = [
        _compute_one(load(int(str(algorithm_id))), own_jobs, episodes, episode_of, clean)
        for algorithm_id, own_jobs in jobs.groupby("algorithm_id")
    ]
    empty = pd.DataFrame({"metrics": [], "algorithm_version": []}, dtype="str").assign(seconds=0.0)
    return pd.concat(parts).reindex(jobs.index) if parts else empty


def _clean(viewings: pa.Table) -> dict[str, npt.NDArray[np.generic]]:
    """Bring what other systems wrote into the shape algorithms are promised."""
    at = viewings["viewed_at"].cast(pa.timestamp("us")).to_numpy()
    seconds = pc.fill_null(viewings["seconds_watched"], 0).to_numpy()
    return {
        "epid": viewings["epid"].to_numpy(),
        "viewer_id": _viewers(viewings["viewer_id"]),
        "viewed_on": at.astype("datetime64[D]").astype("datetime64[s]"),
        "seconds_watched": seconds.clip(0, MAX_SECONDS_WATCHED).astype(np.int64),
        "completed": pc.fill_null(viewings["completed"], False).to_numpy(),  # noqa: FBT003
    }


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
    algorithm: Algorithm,
    jobs: pd.DataFrame,
    episodes: npt.NDArray[np.generic],
    episode_of: npt.NDArray[np.intp],
    clean: dict[str, npt.NDArray[np.generic]],
) -> pd.DataFrame:
    began = time.perf_counter()
    # An algorithm has at most one job for each episode.
    job_of_episode = pd.Index(jobs["epid"]).get_indexer(pd.Index(episodes))
    job = job_of_episode[episode_of]
    wanted = np.flatnonzero(job >= 0)
    job, viewed_on = job[wanted], clean["viewed_on"][wanted]
    inside = (viewed_on >= jobs["window_start"].to_numpy()[job]) & (viewed_on <= jobs["day"].to_numpy()[job])
    wanted = wanted[inside]
    viewings = pd.DataFrame(
        {
            "job": job[inside],
            "viewer_id": clean["viewer_id"][wanted],
            "viewed_on": viewed_on[inside],
            "seconds_watched": clean["seconds_watched"][wanted],
            "completed": clean["completed"][wanted],
        }
    )
    texts = _compute_texts(algorithm, viewings, jobs[["window_start", "day"]].reset_index(drop=True))
    return pd.DataFrame(
        {
            "metrics": texts,
            "algorithm_version": algorithm.version,
            "seconds": (time.perf_counter() - began) / len(jobs),
        },
        index=jobs.index,
    )


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
        real = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        missing, infinite = np.isnan(real), np.isinf(real)
        # Rounded, so that no machine's last bit shows in a published row; + 0.0 has no minus zero.
        texts = [repr(number) for number in (real.round(REAL_DECIMALS) + 0.0).tolist()]
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

"""Run the algorithms of a micro-batch: many jobs, one set of viewings, whole columns."""

import json

import numpy as np
import pandas as pd

from episodes_assets.algorithms.base import MAX_SECONDS_WATCHED, Algorithm, Metric
from episodes_assets.algorithms.registry import BY_ID

REAL_DECIMALS = 6


class BadAlgorithm(Exception):
    """An algorithm returned something else than it declared."""


def compute_outcomes(jobs: pd.DataFrame, viewings: pd.DataFrame) -> pd.DataFrame:
    """The metrics of many jobs.

    Args:
        jobs: Unique index; `epid` (int64), `algorithm_id` (int), `window_start` and `day`
            (datetime64[s]).
        viewings: `epid` (int64), `viewer_id` (int64), `viewed_at` (datetime64, UTC without zone),
            `seconds_watched` (int, may be missing or absurd), `completed` (bool, may be missing).

    Returns:
        The jobs' index with `metrics` (a JSON object as text) and `algorithm_version`.

    Raises:
        BadAlgorithm: If an algorithm does not return what it declares.
        Exception: Whatever an algorithm raises.
    """
    viewings = _clean(viewings)
    parts = [
        _compute_one(BY_ID[int(str(algorithm_id))], own_jobs, viewings)
        for algorithm_id, own_jobs in jobs.groupby("algorithm_id")
    ]
    empty = pd.DataFrame({"metrics": [], "algorithm_version": []}, dtype="str")
    return pd.concat(parts).reindex(jobs.index) if parts else empty


def _clean(viewings: pd.DataFrame) -> pd.DataFrame:
    """Bring what other systems wrote into the shape algorithms are promised."""
    seconds = viewings["seconds_watched"].fillna(0).clip(0, MAX_SECONDS_WATCHED)
    return pd.DataFrame(
        {
            "epid": viewings["epid"].astype("int64"),
            "viewer_id": viewings["viewer_id"].fillna(-1).astype("int64"),
            "viewed_at": viewings["viewed_at"],
            "viewed_on": viewings["viewed_at"].dt.floor("D").astype("datetime64[s]"),
            "seconds_watched": seconds.astype("int64"),
            "completed": viewings["completed"].fillna(value=False).astype("bool"),
        }
    ).sort_values(["epid", "viewed_at", "viewer_id", "seconds_watched", "completed"])


def _compute_one(algorithm: Algorithm, jobs: pd.DataFrame, viewings: pd.DataFrame) -> pd.DataFrame:
    keyed = jobs[["epid", "window_start", "day"]].rename_axis("job").reset_index()
    joined = viewings.merge(keyed, on="epid", how="inner")
    inside = joined["viewed_on"].between(joined["window_start"], joined["day"])
    columns = ["job", "viewer_id", "viewed_on", "seconds_watched", "completed"]
    own = joined.loc[inside, columns].reset_index(drop=True)
    metrics = algorithm.compute(own, jobs[["window_start", "day"]])
    if list(metrics.columns) != list(algorithm.columns) or not metrics.index.equals(jobs.index):
        raise BadAlgorithm(
            f"{algorithm.name} returned {list(metrics.columns)} for {len(metrics)} jobs; declared "
            f"are {list(algorithm.columns)} for {len(jobs)}"
        )
    return pd.DataFrame(
        {"metrics": _to_json(metrics, algorithm), "algorithm_version": algorithm.version},
        index=jobs.index,
    )


def _to_json(metrics: pd.DataFrame, algorithm: Algorithm) -> list[str]:
    columns = []
    for name, metric in algorithm.columns.items():
        values = pd.to_numeric(metrics[name])
        if metric is Metric.REAL:
            # Rounded, so that no machine's last bit shows in a published row.
            finite = values.where(np.isfinite(values)).round(REAL_DECIMALS) + 0.0
            columns.append(finite.astype("object").where(finite.notna(), None).tolist())
        else:
            whole = values.astype("Int64")
            columns.append(whole.astype("object").where(whole.notna(), None).tolist())
    names = list(algorithm.columns)
    return [json.dumps(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]

"""Which episodes a sample consists of, and their part of a plan and of the state: pure functions of columns.

Episodes are always sampled with all their rows: duplicates in a drop are decided and jobs are planned episode
by episode, so the jobs of a sample are the plan's jobs restricted to it. Episodes of a series are sampled
together. The hash is keyed, so what is in a sample cannot be foreseen.
"""

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.ledger.copies import PlanRows
from episodes_assets.planning.episode_set import state_checksum

Ints = npt.NDArray[np.int64]
_NOTHING: Ints = np.array([], np.int64)
_HASH_BYTES = 8
_WHOLE = 1 << (8 * _HASH_BYTES)


def by_share(drops: Iterable[pa.Table], share: float, key: bytes) -> Ints:
    """The episodes of a share of the series.

    An episode belongs to it if any of its rows is of a series whose keyed hash is less than the share; one
    without a series, if its own hash is.

    Args:
        drops: Tables with `epid` and `series`, accepted rows and refused ones alike.
        share: More than 0, at most 1.
        key: Of the hash.

    Returns:
        Ascending epids.
    """
    limit = int(share * _WHOLE)
    chosen = _NOTHING
    for drop in drops:
        rows = drop.filter(drop["epid"].is_valid())
        named = rows.filter(rows["series"].is_valid())
        encoded = named["series"].combine_chunks().dictionary_encode()
        is_chosen = _are_below(encoded.dictionary.to_pylist(), limit, key)
        alone = np.unique(rows.filter(rows["series"].is_null())["epid"].to_numpy())
        chosen = _with(
            chosen,
            named["epid"].to_numpy()[is_chosen[encoded.indices.to_numpy()]],
            alone[_are_below(alone.tolist(), limit, key)],
        )
    return chosen


def _are_below(values: Sequence[str | int], limit: int, key: bytes) -> npt.NDArray[np.bool_]:
    """Which values have a hash below a limit; a series may be called like the number of an episode."""
    if limit >= _WHOLE:
        return np.ones(len(values), np.bool_)
    bound = limit.to_bytes(_HASH_BYTES, "big")
    person = b"sample number" if values and isinstance(values[0], int) else b"sample text"
    empty = hashlib.blake2b(key=key, digest_size=_HASH_BYTES, person=person)

    def is_below(value: str | int) -> bool:
        own = empty.copy()
        own.update(str(value).encode())
        return own.digest() < bound

    return np.fromiter(map(is_below, values), np.bool_, len(values))


def by_series(drops: Iterable[pa.Table], series: Collection[str]) -> tuple[Ints, set[str]]:
    """The episodes of some series, and which of the series there are.

    Args:
        drops: As `by_share`.
        series: Their names, exactly.
    """
    wanted = pa.array(sorted(series), pa.string())
    chosen, found = _NOTHING, set()
    for drop in drops:
        rows = drop.filter(pc.is_in(drop["series"], value_set=wanted))
        found |= set(pc.unique(rows["series"]).to_pylist())
        chosen = _with(chosen, rows["epid"].drop_null().to_numpy())
    return chosen, found


def all_episodes(drops: Iterable[pa.Table]) -> Ints:
    """The episodes of some drops, ascending.

    Args:
        drops: Tables with `epid`.
    """
    found = _NOTHING
    for drop in drops:
        found = _with(found, drop["epid"].drop_null().to_numpy())
    return found


def slowest_chunks(seconds: pa.Table, limit: int) -> list[tuple[int, int]]:
    """The chunks that took longest, the slowest first.

    Args:
        seconds: `plan_id`, `chunk` and `seconds`, a row for each batch.
        limit: How many.

    Returns:
        Plan and chunk of each.
    """
    sums = seconds.group_by(["plan_id", "chunk"], use_threads=False).aggregate([("seconds", "sum")])
    order = [("seconds_sum", "descending"), ("plan_id", "ascending"), ("chunk", "ascending")]
    first = sums.sort_by(order).slice(0, limit)
    return list(zip(first["plan_id"].to_pylist(), first["chunk"].to_pylist(), strict=True))


def _with(episodes: Ints, *more: Ints) -> Ints:
    """Episodes and more of them, ascending, each once: most days have most of the episodes of others."""
    return np.unique(np.concatenate([episodes, *more]))


def is_in(column: pa.Array | pa.ChunkedArray, epids: Ints | None) -> npt.NDArray[np.bool_]:
    """Which rows are of some episodes; those without an episode are of none.

    Args:
        column: Their epids.
        epids: Ascending; None for all episodes, and then each row counts.
    """
    if epids is None:
        return np.ones(len(column), np.bool_)
    if not len(epids):
        return np.zeros(len(column), np.bool_)
    wanted = pc.fill_null(column, 0).to_numpy() if column.null_count else column.to_numpy()
    at = np.searchsorted(epids, wanted).clip(max=len(epids) - 1)
    found: npt.NDArray[np.bool_] = epids[at] == wanted
    if column.null_count:
        found &= column.is_valid().to_numpy(zero_copy_only=False)
    return found


def restrict_jobs(jobs: pa.Table, epids: Ints | None) -> tuple[pa.Table, Ints]:
    """The jobs of some episodes, numbered anew in their order.

    Args:
        jobs: `position`, `epid` and more, by position.
        epids: Ascending; None for all.

    Returns:
        The jobs, and their positions before.
    """
    kept = jobs.filter(pa.array(is_in(jobs["epid"], epids)))
    before = kept["position"].to_numpy()
    return _with_positions(kept, np.arange(len(kept))), before


def restrict_by_position(rows: pa.Table, before: Ints) -> pa.Table:
    """The rows of some jobs, with the jobs' new positions.

    Args:
        rows: `position` and more.
        before: The positions that the jobs had, ascending; their places are the new ones.
    """
    if not len(before):
        return rows.slice(0, 0)
    positions = rows["position"].to_numpy()
    at = np.searchsorted(before, positions).clip(max=len(before) - 1)
    is_kept = before[at] == positions
    return _with_positions(rows.filter(pa.array(is_kept)), at[is_kept])


def restrict_chunks(chunks: pa.Table, before: Ints) -> pa.Table:
    """The chunks that have some of the jobs, with their numbers, and ranges of the jobs' new positions.

    Args:
        chunks: `first_position`, `jobs` and more.
        before: The positions that the jobs had, ascending.
    """
    first = chunks["first_position"].to_numpy()
    begin = np.searchsorted(before, first, "left")
    end = np.searchsorted(before, first + chunks["jobs"].to_numpy(), "left")
    kept = chunks
    for name, values in (("first_position", begin), ("jobs", end - begin)):
        field = kept.schema.field(name)
        kept = kept.set_column(kept.schema.get_field_index(name), field, pa.array(values, field.type))
    return kept.filter(pa.array(end > begin))


def is_each_job_settled(rows: PlanRows) -> bool:
    """Whether each job of a plan either has an outcome or is waived, and nothing else has or is."""
    settled = np.concatenate([rows.outcomes["position"].to_numpy(), rows.waived["position"].to_numpy()])
    return np.array_equal(np.sort(settled), rows.jobs["position"].to_numpy())


def restrict_plan(rows: PlanRows, epids: Ints | None) -> PlanRows:
    """A plan's rows of some episodes; None for all."""
    jobs, before = restrict_jobs(rows.jobs, epids)
    is_all = len(before) == len(rows.jobs)
    return PlanRows(
        jobs,
        restrict_chunks(rows.chunks, before),
        restrict_by_position(rows.outcomes, before),
        restrict_by_position(rows.waived, before),
        rows.batches if is_all else rows.batches.slice(0, 0),
    )


def restrict_days(
    episodes: pa.Table, recorded: Sequence[Mapping[str, Any]], first: dt.date
) -> list[dict[str, Any]]:
    """The manifests of the tracked days for episodes of which some that the last days added are left out.

    Args:
        episodes: `epid` and `tracked_on`, by day and epid.
        recorded: The manifests of all of them, in order.
        first: The first day of which some are left out.

    Returns:
        Those of the days before as they are, the others counted and chained anew.
    """
    epids = episodes["epid"].to_numpy()
    tracked_on = episodes["tracked_on"].to_numpy().astype("datetime64[D]")
    found: list[dict[str, Any]] = []
    for row in recorded:
        if row["day"] >= first:
            is_first = not found
            own = np.datetime64(row["day"], "D")
            added = np.sort(epids[tracked_on <= own if is_first else tracked_on == own])
            previous = None if is_first else found[-1]["checksum"]
            total = len(added) + (0 if is_first else found[-1]["total"])
            changed = {"newly_tracked": len(added), "total": total, "previous_checksum": previous}
            found.append({**row, **changed, "checksum": state_checksum(previous or "", added)})
        else:
            found.append(dict(row))
    return found


def _with_positions(rows: pa.Table, positions: Ints) -> pa.Table:
    field = rows.schema.field("position")
    return rows.set_column(rows.schema.get_field_index("position"), field, pa.array(positions, field.type))

"""Reads which episodes of a source belong to a sample, and estimates its size.

The rules of samples are pure functions in `sampling.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.errors import BadLab
from episodes_assets.lab import sampling
from episodes_assets.lab.request import Kind, SampleSpec, TakeRequest
from episodes_assets.lab.sampling import Ints
from episodes_assets.lab.source import PlannedDay, Source, each_day, read_days
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.ledger import copies
from episodes_assets.postgres.arrow import RepeatableRead
from episodes_assets.results.copies import read_total


def choose(
    source: Source,
    queue: RepeatableRead,
    results: RepeatableRead,
    planned: Sequence[PlannedDay],
    sample: SampleSpec,
    key: Callable[[], bytes],
) -> Ints | None:
    """The episodes of a sample, ascending; None for all.

    Args:
        source: Where they are.
        queue: To its `queue`.
        results: To its `results`, which is only kept alive.
        planned: The days.
        sample: Which ones.
        key: Gives the key of the hash.

    Raises:
        BadLab: If there is no such series, plan or chunk, or no episode at all.
    """
    if sample.is_whole:
        return None
    days = partial(each_day, planned, queue, results)
    if sample.kind is Kind.SHARE:
        chosen = sampling.by_share(_drops(source, days(), "epid", "series"), sample.share, key())
    elif sample.kind is Kind.SERIES:
        chosen, found = sampling.by_series(_drops(source, days(), "epid", "series"), sample.series)
        if missing := sorted({*sample.series} - found):
            raise BadLab(f"no episode is of the series {missing[0]!r}", "spell it as the drop does")
    elif sample.kind is Kind.EPIDS:
        there = sampling.all_episodes(_drops(source, days(), "epid"))
        chosen = np.intersect1d(np.array(sample.epids, np.int64), there)
    else:
        chosen = _of_chunks(queue, results, planned, sample)
    if not len(chosen):
        raise BadLab("the sample has no episode", "choose a larger share, or other episodes")
    return chosen


def rows_of(source: Source, planned: PlannedDay, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a day's drop, of accepted and of refused rows."""
    drop = source.drop_of(planned)
    for table, file in ((source.drops.episodes, drop.episodes), (source.drops.quarantine, drop.quarantine)):
        with table.open(file) as opened:
            yield opened.read(list(columns), use_threads=False)


def _drops(source: Source, days: Iterable[PlannedDay], *columns: str) -> Iterator[pa.Table]:
    """Some columns of the drops of all days, one table after the other: they may not fit into memory."""
    return (table for each in days for table in rows_of(source, each, columns))


def _of_chunks(
    queue: RepeatableRead, results: RepeatableRead, planned: Sequence[PlannedDay], sample: SampleSpec
) -> Ints:
    """The episodes that have a job in one of some chunks."""
    own = {each.plan_id: each for each in planned}
    if sample.kind is Kind.CHUNK:
        chunks = [sample.chunk]
    else:
        tables = [copies.read_batches(queue, each.plan_id) for each in each_day(planned, results)]
        chunks = sampling.slowest_chunks(pa.concat_tables(tables), sample.slowest)
    epids = []
    for plan_id, chunk in chunks:
        if plan_id not in own:
            numbers = ", ".join(map(str, own))
            raise BadLab(f"plan {plan_id} is none of these days'", f"their plans are: {numbers}")
        results.keep_alive()
        found = copies.read_chunks(queue, plan_id)
        found = found.filter(pc.equal(found["chunk"], chunk))
        if not len(found):
            raise BadLab(
                f"plan {plan_id} has no chunk {chunk}", "`episodes jobs status DAY` shows its chunks"
            )
        begin, count = found["first_position"][0].as_py(), found["jobs"][0].as_py()
        epids.append(copies.read_jobs(queue, plan_id)["epid"].slice(begin, count).to_numpy())
    return np.unique(np.concatenate(epids)) if epids else np.array([], np.int64)


@dataclass(frozen=True)
class EstimatedPart:
    """What a part of a bundle will be about.

    Attributes:
        what: The part.
        rows: Its rows.
        bytes: Its bytes.
        read_from: Where it is read.
    """

    what: str
    rows: int
    bytes: int
    read_from: str


# Bytes of a row, compressed.
_STATE_BYTES, _JOB_BYTES, _OUTCOME_BYTES = 3.0, 6.0, 25.0


def estimate(source: Source, request: TakeRequest) -> list[EstimatedPart]:
    """About how many rows and bytes a bundle will have, by manifests and the lake's log.

    Of a sample of series or of single episodes, the drops are read.

    Raises:
        As `take`, but for what concerns the folder.
    """
    with source.connect() as (queue, results):
        planned = read_days(queue, results, request.all_days)
        return estimate_parts(source, request, queue, results, planned)


def estimate_parts(
    source: Source,
    request: TakeRequest,
    queue: RepeatableRead,
    results: RepeatableRead,
    planned: Sequence[PlannedDay],
) -> list[EstimatedPart]:
    """The same of some published days, in sessions that are open."""
    share = _share(source, queue, results, request.sample, planned)
    drops: dict[str, LakeFile] = {}
    viewings: dict[str, LakeFile] = {}
    for each in each_day(planned, results):
        drop = source.drop_of(each)
        drops |= {file.path: file for file in (drop.episodes, drop.quarantine)}
        first = copies.read_first_window(queue, each.plan_id) or each.day
        files = source.version_of(each).between(min(first, each.day), each.day)
        viewings |= {file.path: file for file in files}
    jobs, tracked = sum(each.jobs for each in planned) * share, read_total(results, request.day)
    return [
        EstimatedPart("tracked episodes", tracked, round(tracked * _STATE_BYTES), "results"),
        EstimatedPart("jobs", round(jobs), round(jobs * _JOB_BYTES), "queue"),
        EstimatedPart("outcomes", round(jobs), round(jobs * _OUTCOME_BYTES), "queue"),
        _estimated("drops", drops.values(), share),
        _estimated("viewings", viewings.values(), share),
    ]


def _estimated(what: str, files: Iterable[LakeFile], share: float) -> EstimatedPart:
    own = list(files)
    rows, size = sum(file.rows for file in own), sum(file.size for file in own)
    return EstimatedPart(what, round(rows * share), round(size * share), "lake")


def _share(
    source: Source,
    queue: RepeatableRead,
    results: RepeatableRead,
    sample: SampleSpec,
    planned: Sequence[PlannedDay],
) -> float:
    """About which part of all rows a sample has."""
    if sample.kind in (Kind.WHOLE, Kind.SHARE):
        return sample.share
    days = partial(each_day, planned, queue, results)
    there = sampling.all_episodes(_drops(source, days(), "epid"))
    if sample.kind is Kind.SERIES:
        chosen, _ = sampling.by_series(_drops(source, days(), "epid", "series"), sample.series)
    elif sample.kind is Kind.EPIDS:
        chosen = np.intersect1d(np.array(sample.epids, np.int64), there)
    else:
        chosen = _of_chunks(queue, results, planned, sample)
    return len(chosen) / max(len(there), 1)

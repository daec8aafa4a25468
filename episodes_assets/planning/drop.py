"""The drop: its columns in Arrow and pandas, the rules by which rows are accepted, and cuts between episodes.

A row that breaks a rule is quarantined with its reasons; `docs/bad-input.md` explains the rules and the
decisions behind them. How the input's own types are read is not decided here (`input/columns.py`), nor where
accepted rows are kept (`lake/`).
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
from pandera.errors import SchemaErrors

from episodes_assets.algorithms import declaration, registry

EARLIEST_DATE = pd.Timestamp("1900-01-01")
LATEST_DATE = pd.Timestamp("2199-12-31")
KEY = ["epid", "algorithm_id"]
DATES: tuple[LiteralString, ...] = ("premier_date", "start_date")
VALIDATED: tuple[LiteralString, ...] = ("epid", "algorithm_id", *DATES)
# The column with what stands in place of values of these, as a JSON object; missing where all could be read.
AS_FOUND: LiteralString = "as_found"


@dataclass(frozen=True)
class ValidatedDrop:
    """A drop's rows, each of them either accepted or quarantined.

    Attributes:
        accepted: Rows that pass every rule, `epid` as int64 and `algorithm_id` as int16, without `AS_FOUND`.
        quarantined: The others, with `reasons`: the broken rules' names, comma-separated.
    """

    accepted: pd.DataFrame
    quarantined: pd.DataFrame

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows break each rule, most frequent first; a row may break several."""
        counts = self.quarantined["reasons"].astype("str").str.split(", ").explode().value_counts()
        return {str(reason): int(count) for reason, count in counts.items()}


def _is_plausible(dates: pd.Series) -> pd.Series:
    return dates.isna() | dates.between(EARLIEST_DATE, LATEST_DATE)


def _reach_has_premiere(drop: pd.DataFrame) -> pd.Series:
    return drop["premier_date"].notna() | (drop["algorithm_id"] != declaration.REACH).fillna(value=True)


def _is_first_of_equals(drop: pd.DataFrame) -> pd.Series:
    """Whether no row before it has its key and dates; one with an unreadable date is not accepted itself."""
    repeats = _repeats_the_key_before(drop).to_numpy()
    if not repeats.any():
        return pd.Series(data=True, index=drop.index)
    is_readable = np.logical_and.reduce([_is_readable(drop, column) for column in DATES])
    readable_before = np.cumsum(is_readable) - is_readable
    of_this_key = readable_before - readable_before[~repeats][np.cumsum(~repeats) - 1]
    return pd.Series(of_this_key == 0, drop.index) | ~_agrees_with_its_twins(drop)


def _agrees_with_its_twins(drop: pd.DataFrame) -> pd.Series:
    """False for every row whose key occurs with different dates: none of them can be trusted."""
    repeats = _repeats_the_key_before(drop).to_numpy()
    key = np.cumsum(~repeats) - 1  # its number; rows without one have each their own
    differs = np.zeros(int(repeats.size - repeats.sum()), dtype=np.bool_)
    for column in DATES:
        dates = drop[column].to_numpy().astype(np.int64)  # all that are missing are one number
        differs[key[1:][repeats[1:] & (dates[1:] != dates[:-1])]] = True
    return pd.Series(~differs[key], drop.index)


def _repeats_the_key_before(drop: pd.DataFrame) -> pd.Series:
    """Whether a row, in settled order, has the same key as the one before it; no key equals none."""
    has_key = drop["epid"].notna().to_numpy() & drop["algorithm_id"].notna().to_numpy()
    same = np.zeros(len(drop), dtype=np.bool_)
    same[1:] = _equal_the_next(*_key_arrays(drop)) & has_key[1:] & has_key[:-1]
    return pd.Series(same, drop.index)


def _is_readable(drop: pd.DataFrame, column: str) -> pd.Series:
    if drop[AS_FOUND].isna().all():
        return pd.Series(data=True, index=drop.index)
    # A quote inside of a value is escaped there.
    named = drop[AS_FOUND].str.contains(f'"{column}":', regex=False)
    return ~named.fillna(value=False).astype("bool")


def _rule(name: str, check: Callable[[Any], pd.Series]) -> pandera.Check:
    return pandera.Check(check, name=name, error=name, ignore_na=False)


# A rule's name is the reason that a user reads.
_SCHEMA = pandera.DataFrameSchema(
    columns={
        "epid": pandera.Column(
            nullable=True,
            checks=[
                _rule("epid_missing", lambda s: s.notna()),
                _rule("epid_negative", lambda s: (s >= 0).fillna(value=True)),
            ],
        ),
        "algorithm_id": pandera.Column(
            nullable=True,
            checks=[
                _rule("algorithm_id_missing", lambda s: s.notna()),
                _rule("algorithm_id_unknown", lambda s: s.isna() | s.isin(registry.get_registry().ids)),
            ],
        ),
        "premier_date": pandera.Column(
            nullable=True, checks=[_rule("premier_date_implausible", _is_plausible)]
        ),
        "start_date": pandera.Column(
            nullable=True,
            checks=[
                _rule("start_date_missing", lambda s: s.notna()),
                _rule("start_date_implausible", _is_plausible),
            ],
        ),
    },
    checks=[
        *(
            _rule(f"{column}_unreadable", functools.partial(_is_readable, column=column))
            for column in VALIDATED
        ),
        _rule("premier_date_missing_for_reach", _reach_has_premiere),
        _rule("duplicate", _is_first_of_equals),
        _rule("duplicate_with_other_dates", _agrees_with_its_twins),
    ],
)

# What cannot be read is missing as well, which then is no reason of its own.
_CONSEQUENCES = {
    "epid_missing": "epid_unreadable",
    "algorithm_id_missing": "algorithm_id_unreadable",
    "premier_date_missing_for_reach": "premier_date_unreadable",
    "start_date_missing": "start_date_unreadable",
}


def _reasons(cases: pd.DataFrame) -> pd.Series:
    """The names of the rules that each row breaks, by its place."""
    cases = cases.drop_duplicates(["index", "check"]).astype({"index": "int64", "check": "str"})
    broken = dict.fromkeys(zip(cases["index"], cases["check"], strict=True))  # in their order
    own = [(row, check) for row, check in broken if (row, _CONSEQUENCES.get(check)) not in broken]
    reasons = pd.DataFrame(own, columns=["index", "check"])
    return reasons.groupby("index")["check"].agg(", ".join)


def _settle_order(drop: pd.DataFrame) -> pd.DataFrame:
    """Order rows by key, and those with the same key by all their columns.

    A table has no order of its own, and which of several equal rows is kept must not depend on it.
    """
    epid, algorithm = _key_arrays(drop)
    if not _is_ordered(epid, algorithm):  # the input gives it ordered by key
        drop = drop.sort_values(KEY, kind="stable")
        epid, algorithm = _key_arrays(drop)
    drop = drop.reset_index(drop=True)
    # Rows without a key are equal to none by key, but their order must be settled as well.
    same = _equal_the_next(epid, algorithm)
    if not same.any():
        return drop
    twins = drop[np.append(same, False) | np.append(False, same)]
    order = np.arange(len(drop))
    order[twins.index] = twins.sort_values(list(twins.columns)).index
    return drop.loc[order].reset_index(drop=True)


_Keys = npt.NDArray[np.integer[Any]]


def _key_arrays(drop: pd.DataFrame) -> tuple[_Keys, _Keys]:
    """The columns of the key; missing parts of it, which come last, as the highest number."""
    highest = np.iinfo(np.int64).max
    epid, algorithm = (
        drop[column].astype("Int64").to_numpy(dtype=np.int64, na_value=highest) for column in KEY
    )
    return epid, algorithm


def _is_ordered(epid: _Keys, algorithm: _Keys) -> bool:
    """Whether rows are ordered by key."""
    later = epid[1:] > epid[:-1]
    return bool((later | ((epid[1:] == epid[:-1]) & (algorithm[1:] >= algorithm[:-1]))).all())


def _equal_the_next(epid: _Keys, algorithm: _Keys) -> npt.NDArray[np.bool_]:
    """Of each row but the last, whether the next one has the same key."""
    same: npt.NDArray[np.bool_] = (epid[1:] == epid[:-1]) & (algorithm[1:] == algorithm[:-1])
    return same


@functools.cache
def prepare_rules() -> None:
    """Build pandera's schema in advance, which takes a tenth of a second at the first validation."""
    dtypes = {"epid": "Int64", "algorithm_id": "Int64"} | dict.fromkeys(
        ["premier_date", "start_date"], "datetime64[s]"
    )
    validate_drop(pd.DataFrame({name: pd.Series([], dtype=dtype) for name, dtype in dtypes.items()}))


def validate_drop(drop: pd.DataFrame) -> ValidatedDrop:
    """Split a drop into accepted and quarantined rows.

    Args:
        drop: Columns as in the input table, in any order of rows; `epid` and `algorithm_id` nullable
            integers, `premier_date` and `start_date` datetime64[s], each with missing values; `AS_FOUND`
            may be left out.
    """
    if AS_FOUND not in drop:
        drop = drop.assign(**{AS_FOUND: pd.Series(None, drop.index, "str")})
    drop = _settle_order(drop)
    try:
        _SCHEMA.validate(drop[[*VALIDATED, AS_FOUND]], lazy=True)
        broken = pd.Series([], dtype="str")
    except SchemaErrors as errors:
        broken = _reasons(errors.failure_cases)
    refused = drop.index.isin(broken.index)
    # To pick all rows would copy their text for nothing.
    accepted = (drop.loc[~refused].reset_index(drop=True) if refused.any() else drop).drop(columns=AS_FOUND)
    return ValidatedDrop(
        accepted=accepted.astype({"epid": "int64", "algorithm_id": "int16"}),
        quarantined=drop.loc[refused].assign(reasons=broken).reset_index(drop=True),
    )


# As it is read, and as what is refused of it is kept.
SCHEMA = pa.schema(
    {
        "epid": pa.int64(),
        "algorithm_id": pa.int64(),
        "series": pa.string(),
        "season": pa.int32(),
        "episode": pa.int32(),
        "title": pa.string(),
        "premier_date": pa.date32(),
        "start_date": pa.date32(),
    }
)
# Of what is accepted, the algorithms are those we have.
ACCEPTED = pa.schema(
    [field.with_type(pa.int16()) if field.name == "algorithm_id" else field for field in SCHEMA]
)
QUARANTINED = SCHEMA.append(pa.field("reasons", pa.string())).append(pa.field(AS_FOUND, pa.string()))
_IN_MEMORY = pa.schema(
    [
        field.with_type(pa.timestamp("s")) if field.type == pa.date32() else field
        for field in SCHEMA.append(pa.field(AS_FOUND, pa.string()))
    ]
)
_NULLABLE = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.string(): pd.StringDtype(storage="pyarrow", na_value=float("nan")),
}


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Any of a drop's columns: integers nullable, dates as datetime64[s], text as `str`."""
    wanted = pa.schema([_IN_MEMORY.field(name) for name in table.column_names])
    frame: pd.DataFrame = table.cast(wanted).to_pandas(types_mapper=_NULLABLE.get)
    return frame


def to_table(frame: pd.DataFrame, schema: pa.Schema = ACCEPTED) -> pa.Table:
    """A drop's rows as Arrow: those that are accepted, or with another schema those of it."""
    in_memory = pa.schema(
        [_IN_MEMORY.field(name) if name in _IN_MEMORY.names else schema.field(name) for name in schema.names]
    )
    return pa.Table.from_pandas(frame, schema=in_memory, preserve_index=False).cast(schema)


DROP_PART_ROWS = 1 << 17


def whole_episodes(batches: Iterable[pa.RecordBatch], part_rows: int) -> Iterator[pa.Table]:
    """Join and cut a stream's batches.

    Where it is cut depends on the rows alone, not on the batches they come in.

    Args:
        batches: Ordered by their column `epid`, missing ones last.
        part_rows: A part ends with the episode of its row of that number. Rows without an episode stay
            together like those of one.

    Yields:
        All rows in their order, each part as one chunk, by which Parquet cuts its pages; nothing for a stream
        without batches.
    """
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        while rows > part_rows:
            table = pa.Table.from_batches(waiting)
            end = _end_of_episode(table["epid"], part_rows)
            if end is None:
                break
            yield table[:end].combine_chunks()
            waiting, rows = table[end:].to_batches(), rows - end
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _end_of_episode(epids: pa.ChunkedArray, begin: int) -> int | None:
    """The first row from `begin` on of another episode than the row before it; None if there is none."""
    episode = epids[begin - 1]
    if not episode.is_valid:
        return None  # they come last
    others = pc.fill_null(pc.not_equal(epids[begin:], episode), True)  # noqa: FBT003
    first = pc.index(others, True).as_py()
    return None if first < 0 else begin + int(first)

"""Published rows as files to download, part by part: CSV and Parquet.

Each encoder turns parts of the rows into bytes as they come, so that memory does not grow with the day. The
columns begin with those of `episodes results --csv`, for one algorithm.

A spreadsheet takes a cell that begins like a formula for one, also in quotes (CSV injection). Where it
separates cells by semicolons or tabs, as it does in many locales, a cell begins inside of a text as well,
since quotes count at a cell's beginning only. Only series and titles are text, which others write; in the
CSV each such place gets an apostrophe before it. Numbers, ids and dates are exact in both forms; in Parquet
so are texts.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.algorithms.declaration import Declaration, Metric
from episodes_assets.results.rows import Row, Selection, as_number

# How a formula begins: also in full width, as some spreadsheets accept them.
_SIGN = (
    r"=+\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    r"\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
)
# Before a text that begins so, or with characters that are skipped before it, and where a cell that begins
# inside of a text does. Of a cell that begins with two quotes, which are one in the text, both are skipped.
_FORMULA = re.compile(rf"^(?=[\t\r\n{_SIGN}])|(?<=[;\t\r\n])(?=\"*[{_SIGN}])")
_TYPES = {Metric.INTEGER: pa.int64(), Metric.REAL: pa.float64()}
_KEYS = {
    "day": pa.date32(),
    "epid": pa.int64(),
    "algorithm_id": pa.int16(),
    "window_start": pa.date32(),
    "window_end": pa.date32(),
    "covered_from": pa.date32(),
}
_TITLE = {"series": pa.string(), "season": pa.int32(), "episode": pa.int32(), "title": pa.string()}

_BIGINT = 2**63

Parts = Iterable[list[Row]]


@dataclass(frozen=True)
class Format:
    """A form in which rows are downloaded.

    Attributes:
        media_type: Of the file.
        encode: From parts of the rows to bytes.
    """

    media_type: str
    encode: Callable[[Parts, Selection, Declaration], Iterator[bytes]]


def to_csv(parts: Parts, wanted: Selection, algorithm: Declaration) -> Iterator[bytes]:
    """Rows as CSV (RFC 4180) in UTF-8, a missing value empty.

    Args:
        parts: The rows.
        wanted: What they were selected by.
        algorithm: Theirs.
    """
    names = _schema(algorithm).names
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for part in parts:
        for row in part:
            values = _values(row, names, wanted, algorithm)
            writer.writerow([_inert(each) if isinstance(each, str) else each for each in values])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def to_parquet(parts: Parts, wanted: Selection, algorithm: Declaration) -> Iterator[bytes]:
    """Rows as Parquet, a row group for each part; arguments as `to_csv`."""
    schema = _schema(algorithm)
    written = _Written()
    with pq.ParquetWriter(pa.PythonFile(written, "w"), schema, compression="zstd") as writer:
        for part in parts:
            columns = zip(*(_values(row, schema.names, wanted, algorithm) for row in part), strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            yield written.take()
    yield written.take()


FORMATS: Mapping[str, Format] = {
    "csv": Format("text/csv; charset=utf-8", to_csv),
    "parquet": Format("application/vnd.apache.parquet", to_parquet),
}


class _Written(io.RawIOBase):
    """Bytes that were written and not taken yet."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401  a buffer of Arrow's
        given = bytes(data)
        self._bytes += given
        return len(given)

    def take(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken


def _schema(algorithm: Declaration) -> pa.Schema:
    metrics = {name: _TYPES[metric] for name, metric in algorithm.columns.items()}
    # A metric may be called like a column of the catalogue, and goes first.
    title = {name: of for name, of in _TITLE.items() if name not in metrics}
    return pa.schema({**_KEYS, **metrics, **title})


def _values(row: Row, names: Sequence[str], wanted: Selection, algorithm: Declaration) -> list[object]:
    """A row's values in the order of these columns."""
    of_row = {
        **vars(row),
        "day": wanted.day,
        "algorithm_id": wanted.algorithm_id,
        **{name: _typed(row.metrics.get(name), metric) for name, metric in algorithm.columns.items()},
    }
    return [of_row[name] for name in names]


def _typed(stored: object, metric: Metric) -> int | float | None:
    """A metric as the declared type; None for one that an older version of the algorithm left otherwise."""
    value = as_number(stored)
    if value is None:
        return None
    if metric is Metric.REAL:
        return float(value)
    return int(value) if value == int(value) and -_BIGINT <= value < _BIGINT else None


def _inert(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return _FORMULA.sub("'", text)

"""A day's file of a table: Parquet, named by the SHA-256 of its bytes and by that of its footer.

Parquet's pages have checksums of their own, its footer has none: a footer with one wrong byte can hide rows
or crash the process that reads it. So the footer's digest is part of the name. Where a file is put is
`files.py`; in which version it becomes its day's is decided in `tables.py`.
"""

import datetime as dt
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.private_files import private_opener

# Small enough that the jobs of a chunk read little else, large enough to compress.
ROW_GROUP_ROWS = 16_384
_DIGEST_CHARACTERS = 40
_FOOTER_DIGEST_CHARACTERS = 16
# Bytes at the very end: the length of the footer, and the format's magic number.
_TRAILER = 8
# Bytes that are read first: the footers of most files are shorter.
_USUAL_FOOTER = 1 << 16
# Memory that Arrow takes for a row group of six columns in a footer; measured, as Arrow does not report it.
_ROW_GROUP_BYTES = 5_000
# Enough for the footers of files with 430 million viewings; with more, each chunk reads them again.
FOOTER_BYTES = 128 << 20
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class LakeFile:
    """A file with all rows of a day.

    Attributes:
        day: The day.
        path: Where it is, from the table's folder.
        rows: Its rows.
        size: Its bytes.
    """

    day: dt.date
    path: str
    rows: int
    size: int

    @property
    def digest(self) -> str:
        """The beginning of its SHA-256 in hexadecimal digits, by its name."""
        return self.path.rsplit("/", 1)[-1].partition(".")[0]

    @property
    def footer_digest(self) -> str:
        """The beginning of its footer's SHA-256, by its name; empty in the names of older releases."""
        _, *more = self.path.rsplit("/", 1)[-1].split(".")
        return more[0] if len(more) > 1 else ""

    def to_record(self) -> dict[str, Any]:
        """As it is recorded in JSON; its day is recorded besides."""
        return {"path": self.path, "rows": self.rows, "size": self.size}

    @classmethod
    def from_record(cls, day: dt.date, record: Mapping[str, Any]) -> "LakeFile":
        """From what `to_record` has returned."""
        return cls(day, record["path"], record["rows"], record["size"])


class CheckedFile(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file that is checked, as it is read, to have the rows that its footer states.

    Arrow skips a page whose header was changed, without an error.
    """

    def read_row_group(self, i: int, *args: Any, **kwargs: Any) -> pa.Table:  # noqa: ANN401
        """As Arrow's method; raises ArrowInvalid when rows are missing."""
        return self._checked([i], super().read_row_group(i, *args, **kwargs))

    def read_row_groups(self, row_groups: Sequence[int], *args: Any, **kwargs: Any) -> pa.Table:  # noqa: ANN401
        """As Arrow's method; raises ArrowInvalid when rows are missing."""
        return self._checked(row_groups, super().read_row_groups(row_groups, *args, **kwargs))

    def read(self, *args: Any, **kwargs: Any) -> pa.Table:  # noqa: ANN401
        """As Arrow's method; raises ArrowInvalid when rows are missing."""
        return self._checked(range(self.num_row_groups), super().read(*args, **kwargs))

    def iter_batches(
        self,
        batch_size: int = 1 << 16,
        row_groups: Sequence[int] | None = None,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Iterator[pa.RecordBatch]:
        """As Arrow's method; raises ArrowInvalid at the end when rows are missing."""
        wanted = range(self.num_row_groups) if row_groups is None else row_groups
        rows = 0
        for batch in super().iter_batches(batch_size, wanted, *args, **kwargs):
            rows += batch.num_rows
            yield batch
        self._require_rows(wanted, rows)

    def _checked(self, row_groups: Sequence[int], table: pa.Table) -> pa.Table:
        self._require_rows(row_groups, table.num_rows)
        return table

    def _require_rows(self, row_groups: Sequence[int], rows: int) -> None:
        expected = sum(self.metadata.row_group(each).num_rows for each in row_groups)
        if rows != expected:
            raise pa.ArrowInvalid(f"{rows} rows in place of {expected}")


def read_footer(file: pa.NativeFile, size: int) -> bytes:
    """The bytes of a Parquet file's footer: its metadata.

    Args:
        file: The file.
        size: Its bytes.

    Raises:
        ArrowInvalid: If it has none.
    """
    tail: bytes = file.read_at(min(size, _USUAL_FOOTER), max(size - _USUAL_FOOTER, 0))
    length = int.from_bytes(tail[-_TRAILER:][:4], "little") + _TRAILER
    if len(tail) < _TRAILER or length > size:
        raise pa.ArrowInvalid("it has no footer")
    return tail[-length:] if length <= len(tail) else bytes(file.read_at(length, size - length))


def digest_of_footer(footer: bytes) -> str:
    """The beginning of a footer's SHA-256 in hexadecimal digits, which is part of the file's name."""
    return hashlib.sha256(footer).hexdigest()[:_FOOTER_DIGEST_CHARACTERS]


@dataclass(frozen=True)
class Footer:
    """What the footer says of the row groups of a file that is ordered by its first column, of integers.

    Attributes:
        file: The file.
        metadata: All that the footer says.
        sizes: For each row group, its rows.
        lowest: For each row group, the lowest value of the first column; where it has none, more than any.
        highest: For each row group, the highest value; where it has none, less than any.
        lacks_optional: For each row group, whether the optional column has no value in it.
    """

    file: LakeFile
    metadata: pq.FileMetaData
    sizes: npt.NDArray[np.int64]
    lowest: npt.NDArray[np.int64]
    highest: npt.NDArray[np.int64]
    lacks_optional: npt.NDArray[np.bool_]

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """For each row group, the rows up to its end."""
        return np.cumsum(self.sizes)

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return (len(self.sizes) + 1) * _ROW_GROUP_BYTES

    def begin_of(self, group: int) -> int:
        """The first row of a row group."""
        return int(self.ends[group] - self.sizes[group])

    def group_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """The row groups in which some rows lie."""
        return np.searchsorted(self.ends, rows, side="right")

    @classmethod
    def of(cls, file: LakeFile, metadata: pq.FileMetaData, optional: str) -> "Footer":
        """The footer of a file.

        Args:
            file: The file.
            metadata: Its metadata.
            optional: The name of the optional column.
        """
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        columns = [group.column(0).statistics for group in groups]
        extremes = [
            (each.min, each.max) if each.has_min_max else (_INT64.max, _INT64.min) for each in columns
        ]
        lowest, highest = np.array(extremes, np.int64).reshape(-1, 2).T
        number = metadata.schema.names.index(optional)
        nulls = [group.column(number).statistics.null_count for group in groups]
        sizes = np.array([group.num_rows for group in groups], np.int64)
        return cls(file, metadata, sizes, lowest, highest, np.array(nulls, np.int64) == sizes)


class FooterCache:
    """The most recently used footers (LRU), within `FOOTER_BYTES`; a file never changes."""

    def __init__(self) -> None:
        self._footers: dict[str, Footer] = {}
        self._bytes = 0

    def get(self, file: LakeFile) -> Footer | None:
        """The footer of a file, if it is cached."""
        footer = self._footers.pop(file.path, None)
        if footer is not None:
            self._footers[file.path] = footer  # the last to be dropped
        return footer

    def add(self, footer: Footer) -> None:
        """Add a footer, and drop the least recently used ones."""
        self._footers[footer.file.path] = footer
        self._bytes += footer.bytes
        while self._bytes > FOOTER_BYTES:
            self._bytes -= self._footers.pop(next(iter(self._footers))).bytes


def sync(*paths: Path) -> None:
    """Flush files and the entries of their folders to disk (fsync)."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class DayWriter:
    """A day's file that is being written; `LakeTable.writer` makes it.

    Attributes:
        rows: Rows written so far.
    """

    def __init__(
        self,
        day: dt.date,
        part: Path,
        schema: pa.Schema,
        encodings: Mapping[str, str],
        put: Callable[[Path, str], None],
    ) -> None:
        self.rows = 0
        self._day = day
        self._part = part
        self._put = put
        self._handle = open(part, "wb", opener=private_opener)  # noqa: SIM115  `close` closes it
        self._writer = pq.ParquetWriter(
            self._handle,
            schema,
            compression="zstd",
            use_dictionary=not encodings,
            column_encoding=dict(encodings) or None,
            write_page_checksum=True,
            store_schema=False,
        )

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Add rows."""
        for batch in batches:
            self._writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
            self.rows += batch.num_rows

    def write_group(self, table: pa.Table) -> None:
        """Add rows as a row group of their own."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
            self.rows += table.num_rows

    def content_digest(self) -> str:
        """The SHA-256 of the rows written so far, as they are encoded: of the file without its footer."""
        self._handle.flush()
        with self._part.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    def describe(self, metadata: Mapping[str, str]) -> None:
        """Add to the footer's key-value metadata."""
        self._writer.add_key_value_metadata(dict(metadata))

    def finish(self) -> LakeFile:
        """Move the file to its final place; it becomes the day's file by `LakeTable.commit`."""
        self.close()
        with self._part.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        size = self._part.stat().st_size
        with pa.OSFile(str(self._part)) as handle:
            footer_digest = digest_of_footer(read_footer(handle, size))
        path = f"day={self._day}/{digest[:_DIGEST_CHARACTERS]}.{footer_digest}.parquet"
        self._put(self._part, path)
        return LakeFile(self._day, path, self.rows, size)

    def close(self) -> None:
        """Close the file; idempotent."""
        if not self._handle.closed:
            self._writer.close()
            self._handle.close()

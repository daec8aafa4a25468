"""A day's file of a table: Parquet, named by the SHA-256 of its bytes and by that of its footer.

Parquet's pages have checksums of their own, its footer has none: a footer with one wrong byte can hide rows
or crash the process that reads it. So the footer's digest is part of the name. Where a file is put, and in
which version it becomes its day's, is decided in `tables.py`.
"""

import datetime as dt
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.private_files import private_opener

# Small enough that the jobs of a chunk read little else, large enough to compress.
ROW_GROUP_ROWS = 16_384
_DIGEST_CHARACTERS = 40
_END_DIGEST_CHARACTERS = 16
# Two numbers at the very end: how long it is, and what kind of file.
_TRAILER = 8
# Read at once, as it is of most files less than that.
_USUAL_END = 1 << 16


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
        """The beginning of its SHA-256, as hexadecimal digits: what it is called."""
        return self.path.rsplit("/", 1)[-1].partition(".")[0]

    @property
    def end_digest(self) -> str:
        """The same of its end; empty when it is called by its whole bytes alone, as older ones are."""
        _, *more = self.path.rsplit("/", 1)[-1].split(".")
        return more[0] if len(more) > 1 else ""


class CheckedFile(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file whose row groups have the rows that its end says.

    A page whose header was changed is passed over by Arrow without a word.
    """

    def read_row_group(self, i: int, *args: Any, **kwargs: Any) -> pa.Table:  # noqa: ANN401
        """As the one of Arrow; raises ArrowInvalid when rows are missing."""
        return self._checked([i], super().read_row_group(i, *args, **kwargs))

    def read_row_groups(self, row_groups: Sequence[int], *args: Any, **kwargs: Any) -> pa.Table:  # noqa: ANN401
        """As the one of Arrow; raises ArrowInvalid when rows are missing."""
        return self._checked(row_groups, super().read_row_groups(row_groups, *args, **kwargs))

    def read(self, *args: Any, **kwargs: Any) -> pa.Table:  # noqa: ANN401
        """As the one of Arrow; raises ArrowInvalid when rows are missing."""
        return self._checked(range(self.num_row_groups), super().read(*args, **kwargs))

    def iter_batches(self, *args: Any, **kwargs: Any) -> Iterator[pa.RecordBatch]:  # noqa: ANN401
        """As the one of Arrow, for all row groups; raises ArrowInvalid at the end when rows are missing."""
        rows = 0
        for batch in super().iter_batches(*args, **kwargs):
            rows += batch.num_rows
            yield batch
        self._require_rows(range(self.num_row_groups), rows)

    def _checked(self, row_groups: Sequence[int], table: pa.Table) -> pa.Table:
        self._require_rows(row_groups, table.num_rows)
        return table

    def _require_rows(self, row_groups: Sequence[int], rows: int) -> None:
        expected = sum(self.metadata.row_group(each).num_rows for each in row_groups)
        if rows != expected:
            raise pa.ArrowInvalid(f"{rows} rows in place of {expected}")


def read_end(file: pa.NativeFile, size: int) -> bytes:
    """The footer of a Parquet file: its metadata.

    Args:
        file: The file.
        size: Its bytes.

    Raises:
        ArrowInvalid: If it has none.
    """
    tail: bytes = file.read_at(min(size, _USUAL_END), max(size - _USUAL_END, 0))
    length = int.from_bytes(tail[-_TRAILER:][:4], "little") + _TRAILER
    if len(tail) < _TRAILER or length > size:
        raise pa.ArrowInvalid("it has no end")
    return tail[-length:] if length <= len(tail) else bytes(file.read_at(length, size - length))


def digest_of_end(end: bytes) -> str:
    """What a file is called by its end."""
    return hashlib.sha256(end).hexdigest()[:_END_DIGEST_CHARACTERS]


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
        """Move the file to its final place; `LakeTable.commit` makes it the day's."""
        self.close()
        with self._part.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        size = self._part.stat().st_size
        with pa.OSFile(str(self._part)) as handle:
            end = digest_of_end(read_end(handle, size))
        path = f"day={self._day}/{digest[:_DIGEST_CHARACTERS]}.{end}.parquet"
        self._put(self._part, path)
        return LakeFile(self._day, path, self.rows, size)

    def close(self) -> None:
        """Close the file; once is enough."""
        if not self._handle.closed:
            self._writer.close()
            self._handle.close()

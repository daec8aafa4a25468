"""A day's file of a lake's table: Parquet, called by the beginning of the SHA-256 of its bytes.

Where it is put and when it becomes its day's is decided in `tables.py`.
"""

import datetime as dt
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.private_files import private_opener

# Small enough that the jobs of a chunk read little else, large enough to compress.
ROW_GROUP_ROWS = 16_384
_DIGEST_CHARACTERS = 40


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


def sync(*paths: Path) -> None:
    """Have files, and what folders say of theirs, on disk."""
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

    def finish(self) -> LakeFile:
        """Put the file where it belongs; `LakeTable.commit` makes it the day's."""
        self.close()
        with self._part.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        size = self._part.stat().st_size
        path = f"day={self._day}/{digest[:_DIGEST_CHARACTERS]}.parquet"
        self._put(self._part, path)
        return LakeFile(self._day, path, self.rows, size)

    def close(self) -> None:
        """Close the file; once is enough."""
        if not self._handle.closed:
            self._writer.close()
            self._handle.close()

"""Parquet files that are hashed as they are written."""

import hashlib
import io
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


class HashedParquet:
    """A Parquet file that is written part by part, and the SHA-256 of its bytes.

    Attributes:
        rows: Rows written so far.
    """

    def __init__(self, handle: BinaryIO, schema: pa.Schema) -> None:
        self.rows = 0
        self._handle = handle
        self._sink = _HashingSink(handle)
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")

    @property
    def digest(self) -> str:
        """The SHA-256, once the file is closed."""
        return self._sink.hash.hexdigest()

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
            self.rows += table.num_rows

    def close(self) -> None:
        """Finish the file; once is enough."""
        self._writer.close()
        self._handle.close()


class _HashingSink(io.RawIOBase):
    """Passes bytes on and hashes them."""

    def __init__(self, handle: BinaryIO) -> None:
        self.hash = hashlib.sha256()
        self._handle = handle

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401  bytes, or Arrow's buffers
        self.hash.update(content)
        return self._handle.write(content)

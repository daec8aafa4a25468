"""Digests of the content of rows.

Files of the same rows differ from release to release, and a database has no files to compare. So a bundle
records the digests of its content, and a lab that was loaded from it is compared by them (`verify.py`).
"""

import hashlib
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc


class ContentDigest:
    """A digest of rows in their order: of their columns' names, of which values are missing, and of the rest.

    It does not depend on how the rows are cut into batches.

    Args:
        schema: Of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = schema
        self._columns = [(hashlib.sha256(), hashlib.sha256(), hashlib.sha256()) for _ in schema]

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        """The next rows, with the columns of the schema."""
        self.rows += rows.num_rows
        for field, (valid, values, lengths) in zip(self._schema, self._columns, strict=True):
            column = rows.column(self._schema.get_field_index(field.name))
            if isinstance(column, pa.ChunkedArray):
                column = column.combine_chunks()
            valid.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
            if pa.types.is_string(field.type):
                texts = pc.fill_null(column.cast(pa.large_string()), "")
                lengths.update(pc.binary_length(texts).to_numpy().astype("<i8").tobytes())
                values.update("".join(texts.to_pylist()).encode())
            else:
                values.update(_as_bytes(column))

    def hexdigest(self) -> str:
        """The digest of what was added."""
        whole = hashlib.sha256()
        for field, parts in zip(self._schema, self._columns, strict=True):
            whole.update(f"{field.name} {field.type}\n".encode())
            for part in parts:
                whole.update(part.digest())
        return whole.hexdigest()


def _as_bytes(column: pa.Array) -> bytes:
    """The values of a column of numbers, truth values or times; zeros for what is missing."""
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    content: bytes = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return content


def digest_of(tables: Iterable[pa.Table | pa.RecordBatch], schema: pa.Schema) -> tuple[int, str]:
    """How many rows some tables have, and the digest of their content."""
    digest = ContentDigest(schema)
    for table in tables:
        digest.add(table)
    return digest.rows, digest.hexdigest()

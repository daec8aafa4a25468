"""A user's CSV or Parquet file: all of it is understood exactly, or none of it is taken.

A file that is neither CSV in UTF-8 nor Parquet is recognised by its first and last bytes. What is wrong is
named by line and column. The grammar of CSV is `csv_text`, the conversion of columns `values`; a file that
is named on the command line is opened by `user_files`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from reprlib import Repr
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from episodes_assets.errors import BadFile
from episodes_assets.failures import explain
from episodes_assets.input.csv_text import BadCsv, read_csv_text
from episodes_assets.input.values import BadValue, convert, is_complete
from episodes_assets.user_files import read_whole

_UNPACK = "unpack it"
_SAVE = "save it as CSV in UTF-8, or as Parquet"
_SAVE_AS_UTF8 = "save it as UTF-8"
# By what the file begins with; of two that fit, the first counts.
_SIGNATURES = {
    b"\x1f\x8b": ("compressed with gzip", _UNPACK),
    b"\x1f\x9d": ("compressed with compress (.Z)", _UNPACK),
    b"BZh": ("compressed with bzip2", _UNPACK),
    b"\xfd7zXZ\0": ("compressed with xz", _UNPACK),
    b"LZIP": ("compressed with lzip", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", _UNPACK),
    b"\x04\x22\x4d\x18": ("compressed with lz4", _UNPACK),
    b"\xff\x06\0\0sNaPpY": ("compressed with snappy", _UNPACK),
    # What lz4 and zstd may begin with: 0x184d2a50 to 0x184d2a5f.
    **{bytes([0x50 + n, 0x2A, 0x4D, 0x18]): ("compressed with lz4 or zstd", _UNPACK) for n in range(16)},
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    b"PK\x03\x04": ("a ZIP archive or a spreadsheet", f"{_UNPACK}, or {_SAVE}"),
    b"PK\x05\x06": ("an empty ZIP archive", "get the file again"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("a spreadsheet (.xls) or another document of Office", _SAVE),
    b"%PDF-": ("a PDF document", _SAVE),
    b"PARE": ("Parquet that is encrypted", "write it without encryption"),
    b"ARROW1\0\0": ("an Arrow or Feather file", _SAVE),
    b"FEA1": ("a Feather file", _SAVE),
    b"ORC": ("an ORC file", _SAVE),
    b"Obj\x01": ("an Avro file", _SAVE),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", _SAVE),
    b"SQLite format 3\0": ("a SQLite database", _SAVE),
    b"\xff\xfe\0\0": ("text in UTF-32", _SAVE_AS_UTF8),
    b"\0\0\xfe\xff": ("text in UTF-32", _SAVE_AS_UTF8),
    b"\xff\xfe": ("text in UTF-16", _SAVE_AS_UTF8),
    b"\xfe\xff": ("text in UTF-16", _SAVE_AS_UTF8),
}
_PADDING = {b"\0": "NUL bytes", b"\x1a": "end-of-file characters (Ctrl-Z, 0x1a)"}


def foreign_format(data: bytes) -> tuple[str, str] | None:
    """The format of a file and a hint; None if it may be CSV in UTF-8 or Parquet."""
    for signature, found in _SIGNATURES.items():
        if data.startswith(signature):
            return found
    # As RFC 4627 detects the encoding of JSON: by the NUL bytes in the first characters, which are ASCII.
    encoding = json.detect_encoding(data)
    if not encoding.startswith("utf-8"):
        begin = data[:32].decode(encoding, "replace")[:8]
        if begin.isascii() and begin.isprintable():
            return f"text in {encoding[:6].upper()}", _SAVE_AS_UTF8
    return None


def padding(data: bytes) -> str | None:
    """The padding or end-of-file marks after the last row, described; None if there are none."""
    for byte, name in _PADDING.items():
        if (count := len(data) - len(data.rstrip(byte))) > 0:
            return f"{count:,} {name}"
    return None


_PARQUET = b"PAR1"
_short = Repr()
_short.maxstring = 100
# The nanoseconds since 1970 that 64 bits hold, in seconds.
_NANOSECONDS_END = 2**63 // 10**9


@dataclass(frozen=True)
class _Source:
    """A file's columns before they are converted.

    Attributes:
        columns: Text for CSV, the file's own types for Parquet.
        place: Names a row, counted from 0, in a message: by its line or its number.
    """

    columns: pa.Table
    place: Callable[[int], str]


class BadRow(Exception):
    """A row whose values contradict those of other rows, or an option of the command.

    Args:
        row: Counted from 0.
        column: The column to look at.
        what: What is wrong with it.
    """

    def __init__(self, row: int, column: str, what: str) -> None:
        self.row = row
        self.column = column
        self.what = what
        super().__init__(what)


def read_input_file(
    path: Path, schema: pa.Schema, check: Callable[[pa.Table], None] = lambda _: None
) -> pa.Table:
    """Read a file with a header line (CSV) or a schema (Parquet) into a table.

    Args:
        path: Parquet, or CSV in UTF-8, by its content; `-` is standard input. An empty field is a
            missing value, a quoted empty one an empty text.
        schema: The columns, which may come in any order; no value may be missing where one is not nullable.
        check: Raises `BadRow` for a table whose values contradict each other.

    Raises:
        BadFile: If the file cannot be read, a column is missing, unknown or repeated, or a value
            cannot be understood; the message names the line (Parquet: the row) and the column.
        SystemFailure: If the operating system refuses to read it, such as for a missing permission.
        MemoryError: If there is not enough memory for it.
    """
    data = read_whole(path)
    try:
        read = _read_parquet if _is_parquet(path, data) else _read_csv
        source = read(path, data, schema)
        table = _converted(path, source, schema)
        _checked(path, source, table, check)
    except BadCsv as error:
        raise _refusal(f"{path}, {error.place}: {error.what}", error.hint) from error
    except MemoryError:  # some are ArrowExceptions as well
        raise
    except (pa.ArrowException, OSError) as error:
        if (cause := explain(error, str(path))) is not None:
            raise cause from error
        raise _refusal(f"{path} cannot be read ({error})", "get the file again") from error
    return table


def _checked(path: Path, source: _Source, table: pa.Table, check: Callable[[pa.Table], None]) -> None:
    try:
        check(table)
    except BadRow as error:
        place = f"{path}, {source.place(error.row)}, column {error.column}"
        raise _refusal(f"{place}: {error.what}", "fix the file") from error


def _converted(path: Path, source: _Source, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        try:
            column = convert(source.columns[field.name], field.type)
        except BadValue as error:
            place = path if error.row is None else f"{path}, {source.place(error.row)}"
            raise _refusal(f"{place}, column {field.name}: {error.what}", error.hint) from error
        if not field.nullable and column.null_count:
            row = pc.index(column.is_null(), value=True).as_py()
            raise _refusal(f"{path}, {source.place(row)}, column {field.name}: it is empty", "fill it in")
        columns.append(column)
    return pa.table(columns, schema=schema)


def _is_parquet(path: Path, data: bytes) -> bool:
    if not data:
        raise _refusal(f"{path} is empty", "a CSV file begins with the names of its columns")
    if (foreign := foreign_format(data)) is not None:
        what, hint = foreign
        raise _refusal(f"{path} is not a CSV file in UTF-8 nor Parquet but {what}", hint)
    if path.suffix.lower() == ".parquet" and not data.startswith(_PARQUET):
        raise _refusal(f"{path} is not a Parquet file", "name a CSV file otherwise")
    return data.startswith(_PARQUET)


def _read_csv(path: Path, data: bytes, schema: pa.Schema) -> _Source:
    if (filling := padding(data)) is not None:
        raise _refusal(f"{path} ends with {filling}", "get the file again, or remove them if it is complete")
    text = read_csv_text(
        data,
        check_header=lambda names: _check_columns(
            f"{path}, line 1: the header", names, schema, ", separated by commas"
        ),
        is_text=lambda name: schema.field(name).type == pa.string(),
    )
    last = text.columns.column_names[-1]
    if text.last_field is not None and not is_complete(text.last_field, schema.field(last).type):
        line = text.line(text.columns.num_rows - 1)
        raise _refusal(
            f"{path}, line {line}, column {last}: no line end follows, so that the value may be cut short",
            "get the file again, or add a line end if it is complete",
        )
    return _Source(text.columns, lambda row: f"line {text.line(row)}")


def _read_parquet(path: Path, data: bytes, schema: pa.Schema) -> _Source:
    if _is_concatenated(data):
        raise _refusal(
            f"{path} is several Parquet files put together, of which readers find one",
            "get each by itself; all can be loaded at once",
        )
    file = _open_parquet(data, page_checksum_verification=True)
    _check_columns(f"{path}: the file", file.schema_arrow.names, schema)
    table = _exact_int96(path, file, data)
    return _Source(table, lambda row: f"row {row + 1}")


def _open_parquet(data: bytes | pa.Buffer, **options: Any) -> pq.ParquetFile:  # noqa: ANN401  those of Arrow
    """A Parquet file in memory, without reading ahead (`pre_buffer`) in another thread.

    Its rows must be read with `use_threads=False` as well: a thread of Arrow's may still refer to memory of
    Python's after the read. If the process ends then, releasing that memory aborts the process (SIGABRT).
    """
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, **options)


def _is_concatenated(data: bytes) -> bool:
    """Whether the bytes are several Parquet files, one after the other.

    A reader would use the last file's footer with offsets from the beginning of the first, whose pages may
    fit. No total length can be compared: footers leave out padding and the lengths of Bloom filters.
    """
    footer = len(data) - len(_PARQUET) - 4 - int.from_bytes(data[-8:-4], "little")
    begin = len(_PARQUET)
    while (begin := data.find(_PARQUET, begin, max(footer, 0))) >= 0:
        try:
            _open_parquet(pa.py_buffer(data).slice(begin)).read(use_threads=False)
        except (pa.ArrowException, OSError):
            begin += 1
        else:
            return True
    return False


def _exact_int96(path: Path, file: pq.ParquetFile, data: bytes) -> pa.Table:
    """A file's rows, its times of the legacy type INT96 included, whose range no reader checks.

    As nanoseconds they overflow beyond the years 1677 to 2262, as anything else they are truncated, silently.
    """
    table = file.read(use_threads=False)
    flat = [file.schema.column(number) for number in range(len(file.schema))]
    legacy = [each.path for each in flat if each.physical_type == "INT96" and each.path in table.column_names]
    if legacy:
        whole = _open_parquet(data, coerce_int96_timestamp_unit="s")
        seconds = whole.read(columns=legacy, use_threads=False)
        for name in legacy:
            distance = pc.abs(seconds[name].cast(pa.int64()))
            row = pc.index(pc.greater_equal(distance, _NANOSECONDS_END), value=True).as_py()
            if row >= 0:
                raise _refusal(
                    f"{path}, row {row + 1}, column {name}: INT96 does not hold this time exactly",
                    "write it as TIMESTAMP_MICROS",
                )
    return table


def _check_columns(where: str, found: list[str], schema: pa.Schema, how: str = "") -> None:
    missing = [name for name in schema.names if name not in found]
    unknown = [name for name in found if name not in schema.names]
    repeated = sorted({name for name in found if found.count(name) > 1})
    problems = [
        f"{what} {', '.join(map(_short.repr, names))}"
        for what, names in (
            ("lacks column", missing),
            ("has unknown column", unknown),
            ("repeats column", repeated),
        )
        if names
    ]
    if problems:
        raise _refusal(f"{where} {' and '.join(problems)}", f"the columns are {', '.join(schema.names)}{how}")


def _refusal(what: str, hint: str) -> BadFile:
    return BadFile(what, f"{hint}; nothing was loaded")

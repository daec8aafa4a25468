"""The grammar of CSV (RFC 4180), enforced: which bytes are which row and field, or where they are wrong.

One regular expression decides what a row is; pyarrow splits the same bytes into columns of text, telling `""`
(an empty text) from an empty field (a missing value), and both must find as many rows. What the texts mean is
`values`' business.

No reader is strict enough by itself: docs/designs-tried.md says which were tried.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

_BOM = b"\xef\xbb\xbf"
_FIELD = rb'(?:[^",\r\n]++|"(?:[^"]++|"")*+"|)'
_ANY_LINE_END = rb"(?:\r\n|\r|\n)"
_LINE_ENDS = {b"\r\n": rb"\r\n", b"\r": rb"\r(?!\n)", b"\n": rb"\n"}
_HEADER = re.compile(rb"((?:%s,)*+%s)(%s|\Z)" % (_FIELD, _FIELD, _ANY_LINE_END))
_ONE_FIELD = re.compile(_FIELD)
_ONE_LINE_END = re.compile(_ANY_LINE_END)
# PostgreSQL holds no longer value, and pyarrow counts the bytes of a block in 32 bits.
_LONGEST_ROW = 2**30 - 1
# Whole rows of about this many bytes are passed to pyarrow at once.
BLOCK_BYTES = 1 << 20


class BadCsv(Exception):
    """Bytes that are not CSV.

    Args:
        place: The line, counted from 1, and the column where one is known.
        what: What is wrong there.
        hint: What to do about it.
    """

    def __init__(self, place: int | str, what: str, hint: str) -> None:
        self.place = f"line {place}"
        self.what = what
        self.hint = hint
        super().__init__(what)


@dataclass(frozen=True)
class CsvText:
    """A CSV file as columns of text.

    Attributes:
        columns: All as text, by the names of the header; an empty field is null.
        last_field: The last field of a file that does not end with a line end, which may therefore be a part
            of the field that was to be written; else None.
    """

    columns: pa.Table
    last_field: str | None
    _data: bytes
    _ends: npt.NDArray[np.int64]  # of the header and of each row, line end included

    def line(self, row: int) -> int:
        """The line, counted from 1, on which a row, counted from 0, begins."""
        return _line_at(self._data, int(self._ends[row]))


def read_csv_text(
    data: bytes, check_header: Callable[[list[str]], None], is_text: Callable[[str], bool]
) -> CsvText:
    r"""Split a CSV file into columns.

    Fields are separated by commas; a field with a comma, a quote or a line break is quoted. Lines end with
    `\n`, `\r\n` or `\r`; the kinds may be mixed unless the last column is text, to which a `\r` could belong.

    Args:
        data: The whole file in UTF-8, with or without byte order mark.
        check_header: Raises if the columns are not those wanted.
        is_text: Whether the column of a name holds text.

    Raises:
        BadCsv: If a quote is not closed or stands where none may, a row has too few or too many fields, a
            line is blank, or the bytes are not UTF-8.
    """
    data = data.removeprefix(_BOM)
    header = _HEADER.match(data)
    if header is None:
        raise _defect(data, 0, 0, "")
    names = [_name(data[at:end]) for at, end in _fields(data, header.start(1), header.end(1))]
    check_header(names)
    line_end = _LINE_ENDS.get(header[2], _ANY_LINE_END) if is_text(names[-1]) else _ANY_LINE_END
    ends = np.fromiter(_row_ends(data, header.end(), len(names), line_end), np.int64)
    if ends[-1] < len(data):
        raise _defect(data, int(ends[-1]), len(names), names[-1])
    _check_encoding(data, ends, names)
    columns = _split(data, ends, names)
    return CsvText(columns, _last_field(data, ends), data, ends)


def _row_ends(data: bytes, begin: int, fields: int, line_end: bytes) -> Iterator[int]:
    """Where the header ends and where each row ends, up to the first that is wrong."""
    row = rb"(?:%s,){%d}%s(?:%s|\Z)()" % (_FIELD, fields - 1, _FIELD, line_end)
    yield begin
    # The alternative matches a byte where no row matches: the search ends there and does not skip it.
    for found in re.compile(rb"%s|[\s\S]" % row).finditer(data, begin):
        # Behind the last line end, a row of one column could be one more that has no character.
        if found.lastindex is None or found.end() == found.start():
            return
        yield found.end()


def _split(data: bytes, ends: npt.NDArray[np.int64], names: list[str]) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in names])
    if len(ends) == 1:
        return schema.empty_table()
    longest = int(np.diff(ends).max())
    if longest > _LONGEST_ROW:
        row = int(np.diff(ends).argmax())
        raise BadCsv(_line_at(data, int(ends[row])), f"the row is {longest:,} bytes long", "shorten it")
    return pa.concat_tables(
        _split_block(data, ends[first : last + 1], schema) for first, last in _blocks(ends)
    )


def _blocks(ends: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Of each block, the first row and the one after the last."""
    first = 0
    while first < len(ends) - 1:
        fits = int(np.searchsorted(ends, ends[first] + BLOCK_BYTES, side="right")) - 1
        last = max(fits, first + 1)
        yield first, last
        first = last


def _split_block(data: bytes, ends: npt.NDArray[np.int64], schema: pa.Schema) -> pa.Table:
    r"""The rows between the ends as columns, split by pyarrow as a single block.

    Three defects of pyarrow are avoided. Between two blocks it loses the `\n` of a `\r\n`. It removes U+FEFF
    at the beginning as a byte order mark, even if it belongs to the first field, so one is put before it. It
    reads a final `""` without a line end as a missing value, so a line end is added.

    It reads in this thread: a thread of Arrow's could still refer to the block when the process ends, and
    releasing memory of Python's then aborts the process (SIGABRT). Finding the rows takes far longer anyway.
    """
    begin, end = int(ends[0]), int(ends[-1])
    block = b"".join(
        (_BOM, memoryview(data)[begin:end], b"" if data.endswith((b"\n", b"\r"), begin, end) else b"\n")
    )
    columns = pyarrow.csv.read_csv(
        pa.BufferReader(block),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, column_names=schema.names, block_size=len(block) + 1
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    if columns.num_rows != len(ends) - 1:
        raise BadCsv(
            _line_at(data, begin),
            f"{len(ends) - 1:,} rows were read as {columns.num_rows:,}",
            "report this",
        )
    return columns


def _last_field(data: bytes, ends: npt.NDArray[np.int64]) -> str | None:
    if len(ends) == 1 or data.endswith((b"\n", b"\r")):
        return None
    *_, (at, end) = _fields(data, int(ends[-2]), len(data))
    return _unquoted(data[at:end].decode())


def _check_encoding(data: bytes, ends: npt.NDArray[np.int64], names: Sequence[str]) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        row = int(np.searchsorted(ends, error.start, side="right")) - 1
        begins = [at for at, _ in _fields(data, int(ends[row]), int(ends[row + 1]))]
        column = names[int(np.searchsorted(begins, error.start, side="right")) - 1]
        raise _not_utf8(f"{_line_at(data, int(ends[row]))}, column {column}", error) from error


def _name(field: bytes) -> str:
    try:
        return _unquoted(field.decode())
    except UnicodeDecodeError as error:
        raise _not_utf8("1", error) from error


def _not_utf8(place: str, error: UnicodeDecodeError) -> BadCsv:
    byte = error.object[error.start]
    return BadCsv(place, f"it is not a CSV file in UTF-8 (byte 0x{byte:02x})", "save it as UTF-8")


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Where each field of the row from `at` on begins and ends."""
    while True:
        found = _ONE_FIELD.match(data, at, end)
        assert found is not None  # noqa: S101  the expression matches the empty string as well
        yield found.span()
        at = found.end() + 1
        if data[found.end() : at] != b"," or found.end() >= end:
            return


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def _line_at(data: bytes, position: int) -> int:
    return 1 + sum(1 for _ in _ONE_LINE_END.finditer(data, 0, position))


def _defect(data: bytes, begin: int, fields: int, last_column: str) -> BadCsv:
    """The error for the first wrong row, which begins at a position; for the header `fields` is 0."""
    spans = []
    for at, end in _fields(data, begin, len(data)):
        spans.append((at, end))
        if data[end : end + 1] not in (b",", b"\r", b"\n", b""):
            return _misplaced_quote(data, at, end)
    line = _line_at(data, begin)
    if len(spans) == 1 and spans[0][0] == spans[0][1]:
        return BadCsv(line, "it is blank", "remove it; a row of missing values is commas alone")
    if len(spans) == fields:
        return BadCsv(
            line,
            f"its end is not that of line 1, and could belong to the text in column {last_column}",
            "end all lines alike, or quote that column",
        )
    amount = "few" if len(spans) < fields else "many"
    what = f"it has too {amount} fields, {len(spans)} where the header has {fields}"
    if broken := [at for at, end in spans if _ONE_LINE_END.search(data, at, end)]:
        return BadCsv(
            line,
            f"{what}; the row goes on to line {_line_at(data, spans[-1][1])}",
            f"see where the quote that opens on line {_line_at(data, broken[0])} is to be closed",
        )
    if len(spans) > fields:
        return BadCsv(line, what, "quote a field that holds a comma")
    is_last = not data[spans[-1][1] :].strip(b"\r\n")
    return BadCsv(
        line, what, "the file seems to be cut there; get it again" if is_last else "complete the row"
    )


def _misplaced_quote(data: bytes, at: int, end: int) -> BadCsv:
    """The error for a field that is followed by neither a comma nor a line end."""
    opens = _line_at(data, at)
    if at == end:
        return BadCsv(opens, "a quote that opens there is never closed", "close it")
    if data[at : at + 1] == b'"':
        closes = _line_at(data, end)
        return BadCsv(
            opens,
            f"a quote that opens there is closed on line {closes} before the end of a field",
            "close it where its field ends; double the quotes that belong to the text",
        )
    return BadCsv(
        opens, "a quote stands inside a field that is not quoted", "quote the field and double its quotes"
    )

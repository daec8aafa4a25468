"""Columns of a user's file converted exactly to what a table holds, or refused by row; `files` calls it.

It takes whole Arrow columns: text, as in CSV, or any type that Parquet has. No number of a text passes
through a float; nothing is rounded, wrapped around or guessed; a number never becomes a date, a time or a
boolean. Dates and times are those of the years 0001 to 9999, in UTC. Which bytes are which field of a CSV
file is `csv_text`; how the columns of the input database are read, `columns`.
"""

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal
from reprlib import Repr

import pyarrow as pa
import pyarrow.compute as pc

Convert = Callable[[pa.ChunkedArray, pa.DataType], pa.ChunkedArray]

_UTC_TIME = pa.timestamp("us", tz="UTC")
_EPOCH = dt.date(1970, 1, 1)
_FIRST_DAY = (dt.date.min - _EPOCH).days
_LAST_DAY = (dt.date.max - _EPOCH).days
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_MICROSECONDS = 1_000_000
_MOST_DIGITS = 76  # of the widest decimal
_SPACES = " \t"
_TRUE = ["true", "t", "1", "yes"]
_FALSE = ["false", "f", "0", "no"]
_TIME = (
    r"\A(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,6})(?P<beyond>[0-9]*))?)?"
    r"(?: ?(?:Z|(?P<sign>[+-])(?P<off_hour>[0-9]{2})(?::?(?P<off_minute>[0-9]{2}))?))?\z"
)
_LAST_OFFSET_HOUR = 15  # PostgreSQL's
# A text that matches is complete: it is not the beginning of a longer text of the same type.
_COMPLETE = {
    pa.date32(): re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    _UTC_TIME: re.compile(r".*(?:Z|[+-][0-9]{2}:?[0-9]{2})"),
    pa.bool_(): re.compile(r"true|yes|false|no", re.IGNORECASE),
}
_NAMES = {
    pa.int16(): "a whole number of 16 bits",
    pa.int32(): "a whole number of 32 bits",
    pa.int64(): "a whole number of 64 bits",
    pa.date32(): "a date (YYYY-MM-DD)",
    _UTC_TIME: "a time (as in 2018-03-01T20:15:00Z)",
    pa.bool_(): "true or false",
    pa.string(): "text without NUL characters",
}

_short = Repr()
_short.maxstring = 100


class BadValue(Exception):
    """A value that cannot be converted.

    Args:
        row: Counted from 0; None if the whole column is of a wrong type.
        what: The value and what it was expected to be.
        hint: What to do about it.
    """

    def __init__(self, row: int | None, what: str, hint: str = "fix the file") -> None:
        self.row = row
        self.what = what
        self.hint = hint
        super().__init__(what)


def convert(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """A column as another type.

    Args:
        column: Of text, as in CSV, or of any type that a Parquet file may have. Where no text is wanted, an
            empty one is a missing value: writers that quote every field know no other.
        target: int16, int32, int64, date32, bool, string or timestamp[us, UTC].

    Raises:
        BadValue: If a value, or the column's type, cannot be converted exactly.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    source = column.type
    if pa.types.is_null(source):
        return column.cast(target)
    if _is_text(source):
        column = _checked_text(column)
        if target != pa.string():
            column = pc.if_else(pc.equal(column, ""), None, column)
        return _FROM_TEXT[target](column, target)
    for is_source, from_source in _FROM_TYPES[target]:
        if is_source(source):
            return from_source(column, target)
    raise BadValue(None, f"its type {source} cannot be read as {_NAMES[target]}")


def is_complete(text: str, target: pa.DataType) -> bool:
    """Whether no longer text of the type begins with this one, so that the text has not been cut short."""
    complete = _COMPLETE.get(target)
    return complete is not None and complete.fullmatch(text.strip(_SPACES)) is not None


def _is_text(source: pa.DataType) -> bool:
    return any(
        each(source)
        for each in (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
            pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
        )
    )  # fmt: skip


def _checked_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """As `string`, checked to be UTF-8, which reading a Parquet file does not check."""
    raw = column.cast(pa.binary())
    text = pa.chunked_array([chunk.view(pa.string()) for chunk in raw.chunks], pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        for row, value in enumerate(raw):
            if value.is_valid and not _is_utf8(value.as_py()):
                raise BadValue(row, f"{_short.repr(value.as_py())} is not text in UTF-8") from None
        raise
    return text


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    _refuse(pc.match_substring(column, "\0"), column, target)
    return column


def _whole_number_of_text(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    text = pc.ascii_trim(column, _SPACES)
    _refuse(pc.invert(pc.match_substring_regex(text, r"\A[+-]?0*[0-9]{1,19}\z")), column, target)
    return _fitted(text.cast(pa.decimal128(19, 0)), column, target)


def _date_of_text(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    text = pc.ascii_trim(column, _SPACES)
    dates = _dates_of_text(text)
    _refuse(pc.and_(text.is_valid(), dates.is_null()), column, target)
    return dates


def _dates_of_text(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates spelt YYYY-MM-DD, null for all else."""
    # strptime accepts 30 February and other spellings; they differ after conversion back to text.
    moments = pc.strptime(text, format="%Y-%m-%d", unit="s", error_is_null=True)
    dates = moments.cast(pa.date32())
    is_same = pc.equal(dates.cast(pa.string()), text)
    return pc.if_else(pc.and_(is_same, _between(dates.cast(pa.int32()), _FIRST_DAY, _LAST_DAY)), dates, None)


def _time_of_text(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    parts = pc.extract_regex(pc.ascii_trim(column, _SPACES), _TIME)
    _refuse(pc.and_(column.is_valid(), parts.is_null()), column, target)

    def number(name: str) -> pa.ChunkedArray:
        digits = pc.struct_field(parts, name)
        return pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64())

    dates = _dates_of_text(pc.struct_field(parts, "date"))
    offset = pc.add(pc.multiply(number("off_hour"), 60), number("off_minute"))
    is_moment = [
        dates.is_valid(),
        pc.less(number("hour"), 24),
        pc.less(number("minute"), 60),
        pc.less(number("second"), 60),
        pc.less_equal(number("off_hour"), _LAST_OFFSET_HOUR),
        pc.less(number("off_minute"), 60),
    ]
    for each in is_moment:
        _refuse(pc.and_kleene(column.is_valid(), pc.invert(each)), column, target)
    _refuse(
        pc.match_substring_regex(pc.struct_field(parts, "beyond"), "[1-9]"),
        column,
        "a time in whole microseconds",
        "the database keeps no more than six decimal places; round it",
    )
    is_west = pc.equal(pc.struct_field(parts, "sign"), "-")
    hours = pc.add(pc.multiply(dates.cast(pa.int32()).cast(pa.int64()), 24), number("hour"))
    minutes = pc.add(pc.multiply(hours, 60), number("minute"))
    minutes = pc.add(minutes, pc.if_else(is_west, offset, pc.negate(offset)))
    seconds = pc.add(pc.multiply(minutes, 60), number("second"))
    fraction = pc.ascii_rpad(pc.struct_field(parts, "fraction"), 6, "0").cast(pa.int64())
    return _moments(pc.add(pc.multiply(seconds, _MICROSECONDS), fraction), column, target)


def _boolean_of_text(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    text = pc.ascii_lower(pc.ascii_trim(column, _SPACES))
    found = pc.index_in(text, pa.array(_TRUE + _FALSE))
    _refuse(pc.and_(column.is_valid(), found.is_null()), column, target)
    return pc.less(found, len(_TRUE))


def _whole_number_of_integer(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    return _fitted(column.cast(pa.decimal128(20, 0)), column, target)


def _whole_number_of_decimal(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    scale = column.type.scale
    if scale == _MOST_DIGITS:  # where there is no room for a whole number but 0
        _refuse(pc.not_equal(column, pa.scalar(Decimal(0), column.type)), column, target)
        return pc.if_else(column.is_valid(), pa.scalar(0, target), None)
    wide = column.cast(pa.decimal256(_MOST_DIGITS, scale))
    _refuse(pc.not_equal(pc.trunc(wide), wide), column, target)
    return _fitted(pc.trunc(wide).cast(pa.decimal256(_MOST_DIGITS, 0)), column, target)


def _whole_number_of_float(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Only numbers below 2**bits: a larger float may be another number rounded, as 2**53 is of 2**53 + 1."""
    bits = {16: 11, 32: 24, 64: 53}[column.type.bit_width]
    wide = column.cast(pa.float64())
    _refuse(pc.invert(pc.equal(pc.trunc(wide), wide)), column, target)
    _refuse(
        pc.greater_equal(pc.abs(wide), 2.0**bits),
        column,
        "a number that its type holds exactly",
        "write it as an integer",
    )
    return _fitted(wide.cast(pa.int64()), column, target)


def _date_of_date(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    days = column.cast(pa.int32())
    _refuse(pc.invert(_between(days, _FIRST_DAY, _LAST_DAY)), column, target)
    return column


def _date_of_time(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    per_day = _PER_DAY["ms" if pa.types.is_date64(column.type) else column.type.unit]
    count = column.cast(pa.int64())
    days = pc.divide(count, per_day)
    _refuse(pc.not_equal(pc.multiply(days, per_day), count), column, target)
    _refuse(pc.invert(_between(days, _FIRST_DAY, _LAST_DAY)), column, target)
    return days.cast(pa.int32()).cast(target)


def _time_of_time(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    count = column.cast(pa.int64())
    per_second = _PER_DAY[column.type.unit] // _PER_DAY["s"]
    if per_second > _MICROSECONDS:
        micro = pc.divide(count, per_second // _MICROSECONDS)
        _refuse(
            pc.not_equal(pc.multiply(micro, per_second // _MICROSECONDS), count),
            column,
            "a time in whole microseconds",
            "the database keeps no more; round it",
        )
        return _moments(micro, column, target)
    first, last = _FIRST_DAY * _PER_DAY[column.type.unit], (_LAST_DAY + 1) * _PER_DAY[column.type.unit]
    _refuse(pc.invert(_between(count, first, last)), column, target)
    return _moments(pc.multiply(count, _MICROSECONDS // per_second), column, target)


def _unchanged(column: pa.ChunkedArray, _target: pa.DataType) -> pa.ChunkedArray:
    return column


def _is_calendar_time(source: pa.DataType) -> bool:
    """Whether its midnights are dates: without a time zone, or in UTC."""
    return bool(pa.types.is_timestamp(source) and source.tz in (None, "UTC", "Etc/UTC", "+00:00", "Z"))


_NUMBERS: list[tuple[Callable[[pa.DataType], bool], Convert]] = [
    (pa.types.is_integer, _whole_number_of_integer),
    (pa.types.is_decimal, _whole_number_of_decimal),
    (pa.types.is_floating, _whole_number_of_float),
]
_FROM_TYPES: dict[pa.DataType, list[tuple[Callable[[pa.DataType], bool], Convert]]] = {
    pa.int16(): _NUMBERS,
    pa.int32(): _NUMBERS,
    pa.int64(): _NUMBERS,
    pa.date32(): [
        (pa.types.is_date32, _date_of_date),
        (pa.types.is_date64, _date_of_time),
        (_is_calendar_time, _date_of_time),
    ],
    _UTC_TIME: [(pa.types.is_timestamp, _time_of_time)],
    pa.bool_(): [(pa.types.is_boolean, _unchanged)],
    pa.string(): [],
}
_FROM_TEXT: dict[pa.DataType, Convert] = {
    pa.int16(): _whole_number_of_text,
    pa.int32(): _whole_number_of_text,
    pa.int64(): _whole_number_of_text,
    pa.date32(): _date_of_text,
    _UTC_TIME: _time_of_text,
    pa.bool_(): _boolean_of_text,
    pa.string(): _text,
}


def _fitted(numbers: pa.ChunkedArray, column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    limit = 2 ** (target.bit_width - 1)
    _refuse(pc.invert(_between(numbers, -limit, limit - 1)), column, target)
    return numbers.cast(target)


def _moments(micro: pa.ChunkedArray, column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    first, beyond = _FIRST_DAY * _PER_DAY["us"], (_LAST_DAY + 1) * _PER_DAY["us"]
    _refuse(
        pc.invert(_between(micro, first, beyond - 1)),
        column,
        "a time of the years 0001 to 9999 in UTC",
    )
    return micro.cast(target)


def _between(numbers: pa.ChunkedArray, first: int, last: int) -> pa.ChunkedArray:
    low, high = pa.scalar(first, numbers.type), pa.scalar(last, numbers.type)
    return pc.and_(pc.greater_equal(numbers, low), pc.less_equal(numbers, high))


def _refuse(
    is_bad: pa.ChunkedArray, column: pa.ChunkedArray, what: pa.DataType | str, hint: str = "fix the file"
) -> None:
    """Raise `BadValue` for the first row in which `is_bad` is true; null counts as false."""
    row = pc.index(is_bad, value=True).as_py()
    if row >= 0:
        name = what if isinstance(what, str) else _NAMES[what]
        raise BadValue(row, f"{_shown(column[row])} is not {name}", hint)


def _shown(value: pa.Scalar) -> str:
    if _is_text(value.type):
        return _short.repr(value.as_py())
    if pa.types.is_timestamp(value.type) and value.type.tz is not None:
        # Arrow may not know the time zone; the instant is the same in UTC.
        return f"{_shown(pa.scalar(value.value, pa.timestamp(value.type.unit)))}Z"
    # Some values have no counterpart in Python.
    return str(value.cast(pa.string()))

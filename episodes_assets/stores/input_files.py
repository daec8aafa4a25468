"""Reading a user's CSV or Parquet file: all of it is understood, or none of it is taken."""

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.errors import BadFile
from episodes_assets.failures import explain

_TRUTHS = {"true": True, "t": True, "1": True, "yes": True,
           "false": False, "f": False, "0": False, "no": False}  # fmt: skip


def read_input_file(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a file with a header line (CSV) or a schema (Parquet) into a table.

    Args:
        path: Ends in `.parquet`, or is CSV in UTF-8; an empty field is a missing value.
        schema: The columns, which may come in any order.

    Raises:
        BadFile: If the file cannot be read, a column is missing, unknown or repeated, or a value
            cannot be understood; the message names the line and the column.
        SystemFailure: If the machine does not let it be read: a missing right, no memory and the like.
    """
    if not path.is_file():
        raise BadFile(f"{path} is not a file", "check the path")
    return _read_parquet(path, schema) if path.suffix == ".parquet" else _read_csv(path, schema)


def _read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path)
        _check_columns(path, table.column_names, schema)
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, OSError) as error:
        if (cause := explain(error, str(path))) is not None:
            raise cause from error
        raise BadFile(
            f"{path} does not hold the columns as expected ({error})",
            f"expected are {_describe(schema)}",
        ) from error


def _read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        _check_columns(path, header, schema)
        text = pd.read_csv(
            path,
            dtype="str",
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
            skip_blank_lines=False,
            index_col=False,
            on_bad_lines="error",
        )
    except pd.errors.ParserError as error:
        if "out of memory" in str(error):
            raise MemoryError(str(error)) from error
        raise BadFile(
            f"{path}, line {_line_with_too_many_fields(path, len(schema))}: it has too many fields",
            f"the header has {len(schema)}; quote a field that holds a comma; nothing was loaded",
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadFile(
            f"{path} is not a CSV file in UTF-8 ({str(error).strip()})",
            "mend the file; nothing was loaded",
        ) from error
    columns = []
    for field in schema:
        values, bad = _CONVERTERS[field.type](text[field.name])
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise BadFile(
                f"{path}, line {_line(text, row)}, column {field.name}: "
                f"{text[field.name].iloc[row]!r} is not {_NAMES[field.type]}",
                "mend the file; nothing was loaded",
            )
        columns.append(pa.array(values, type=field.type, from_pandas=True))
    return pa.table(columns, schema=schema)


def _check_columns(path: Path, found: list[str], schema: pa.Schema) -> None:
    missing = [name for name in schema.names if name not in found]
    unknown = [name for name in found if name not in schema.names]
    repeated = sorted({name for name in found if found.count(name) > 1})
    problems = [
        f"{what} {', '.join(map(repr, names))}"
        for what, names in (("lacks", missing), ("has unknown", unknown), ("repeats", repeated))
        if names
    ]
    if problems:
        raise BadFile(
            f"{path}, line 1: the header {' and '.join(problems)}",
            f"the columns are {', '.join(schema.names)}; nothing was loaded",
        )


def _line_with_too_many_fields(path: Path, fields: int) -> int:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        return next((reader.line_num for row in reader if len(row) > fields), 1)


def _line(text: pd.DataFrame, row: int) -> int:
    """The line on which a row begins: fields may hold line breaks of their own."""
    above = text.iloc[:row]
    breaks = sum(int(above[name].str.count("\n").fillna(0).sum()) for name in above.columns)
    return row + 2 + breaks


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


Converted = tuple[pd.Series, pd.Series]


def _whole_number(bits: int) -> Callable[[pd.Series], Converted]:
    limit = 2 ** (bits - 1)

    def convert(text: pd.Series) -> Converted:
        stripped = text.str.strip()
        is_number = stripped.str.fullmatch(r"[+-]?\d{1,19}").fillna(value=False).astype("bool")
        numbers = stripped.where(is_number).map(int, na_action="ignore").astype("object")
        fits = numbers.between(-limit, limit - 1).fillna(value=False).astype("bool")
        good = is_number & fits
        return numbers.where(good, None), text.notna() & ~good

    return convert


def _date(text: pd.Series) -> Converted:
    stripped = text.str.strip()
    shaped = stripped.where(stripped.str.fullmatch(r"\d{4}-\d{2}-\d{2}").fillna(value=False))
    days = pd.Series(pd.to_datetime(shaped, format="%Y-%m-%d", errors="coerce"), dtype="datetime64[s]")
    return days.dt.date.where(days.notna(), None), text.notna() & days.isna()


def _timestamp(text: pd.Series) -> Converted:
    moments = pd.to_datetime(text.str.strip(), format="ISO8601", utc=True, errors="coerce")
    return moments, text.notna() & moments.isna()


def _truth(text: pd.Series) -> Converted:
    truths = text.str.strip().str.lower().map(_TRUTHS)
    return truths.astype("object").where(truths.notna(), None), text.notna() & truths.isna()


def _text(text: pd.Series) -> Converted:
    return text, text.str.contains("\0", regex=False).fillna(value=False).astype("bool")


_CONVERTERS: dict[pa.DataType, Callable[[pd.Series], Converted]] = {
    pa.int16(): _whole_number(16),
    pa.int32(): _whole_number(32),
    pa.int64(): _whole_number(64),
    pa.date32(): _date,
    pa.timestamp("us", tz="UTC"): _timestamp,
    pa.bool_(): _truth,
    pa.string(): _text,
}
_NAMES = {
    pa.int16(): "a whole number of 16 bits",
    pa.int32(): "a whole number of 32 bits",
    pa.int64(): "a whole number of 64 bits",
    pa.date32(): "a date (YYYY-MM-DD)",
    pa.timestamp("us", tz="UTC"): "a time (as in 2018-03-01T20:15:00Z)",
    pa.bool_(): "true or false",
    pa.string(): "text without NUL characters",
}

"""The columns of a drop, between Arrow (databases, Parquet) and pandas (validation, planning)."""

import pandas as pd
import pyarrow as pa

SCHEMA = pa.schema(
    {
        "epid": pa.int64(),
        "algorithm_id": pa.int16(),
        "series": pa.string(),
        "season": pa.int32(),
        "episode": pa.int32(),
        "title": pa.string(),
        "premier_date": pa.date32(),
        "start_date": pa.date32(),
    }
)
_IN_MEMORY = pa.schema(
    [field.with_type(pa.timestamp("s")) if field.type == pa.date32() else field for field in SCHEMA]
)
_NULLABLE = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.string(): pd.StringDtype(storage="pyarrow", na_value=float("nan")),
}


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Any of a drop's columns: integers nullable, dates as datetime64[s], text as `str`."""
    wanted = pa.schema([_IN_MEMORY.field(name) for name in table.column_names])
    frame: pd.DataFrame = table.cast(wanted).to_pandas(types_mapper=_NULLABLE.get)
    return frame


def to_table(frame: pd.DataFrame) -> pa.Table:
    """A drop's columns, and any others after them, as Arrow."""
    extra = [name for name in frame.columns if name not in SCHEMA.names]
    fields = [*_IN_MEMORY, *(pa.field(name, pa.string()) for name in extra)]
    table = pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False)
    return table.cast(pa.schema([*SCHEMA, *(pa.field(name, pa.string()) for name in extra)]))

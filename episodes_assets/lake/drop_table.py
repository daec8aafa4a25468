"""The columns of a drop, between Arrow (databases, Parquet) and pandas (validation, planning)."""

import pandas as pd
import pyarrow as pa

from episodes_assets.validation.drop import AS_FOUND

# As it is read, and as what is refused of it is kept.
SCHEMA = pa.schema(
    {
        "epid": pa.int64(),
        "algorithm_id": pa.int64(),
        "series": pa.string(),
        "season": pa.int32(),
        "episode": pa.int32(),
        "title": pa.string(),
        "premier_date": pa.date32(),
        "start_date": pa.date32(),
    }
)
# Of what is accepted, the algorithms are those we have.
ACCEPTED = pa.schema(
    [field.with_type(pa.int16()) if field.name == "algorithm_id" else field for field in SCHEMA]
)
QUARANTINED = SCHEMA.append(pa.field("reasons", pa.string())).append(pa.field(AS_FOUND, pa.string()))

_IN_MEMORY = pa.schema(
    [
        field.with_type(pa.timestamp("s")) if field.type == pa.date32() else field
        for field in SCHEMA.append(pa.field(AS_FOUND, pa.string()))
    ]
)
_NULLABLE = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.string(): pd.StringDtype(storage="pyarrow", na_value=float("nan")),
}


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Any of a drop's columns: integers nullable, dates as datetime64[s], text as `str`."""
    wanted = pa.schema([_IN_MEMORY.field(name) for name in table.column_names])
    frame: pd.DataFrame = table.cast(wanted).to_pandas(types_mapper=_NULLABLE.get)
    return frame


def to_table(frame: pd.DataFrame, schema: pa.Schema = ACCEPTED) -> pa.Table:
    """A drop's rows as Arrow: those that are accepted, or with another schema those of it."""
    in_memory = pa.schema(
        [_IN_MEMORY.field(name) if name in _IN_MEMORY.names else schema.field(name) for name in schema.names]
    )
    return pa.Table.from_pandas(frame, schema=in_memory, preserve_index=False).cast(schema)

"""Filling an input database, as the other teams' systems do in production.

Only `episodes input` uses this, with a DSN that the pipeline itself never holds.
"""

import datetime as dt
from collections.abc import Sequence

import pyarrow as pa

from episodes_assets.databases.arrow import connect_arrow

EPISODES_SCHEMA = pa.schema(
    [
        pa.field("batch_date", pa.date32(), nullable=False),
        ("epid", pa.int64()),
        ("algorithm_id", pa.int16()),
        ("series", pa.string()),
        ("season", pa.int32()),
        ("episode", pa.int32()),
        ("title", pa.string()),
        ("premier_date", pa.date32()),
        ("start_date", pa.date32()),
    ]
)
VIEWINGS_SCHEMA = pa.schema(
    {
        "epid": pa.int64(),
        "viewer_id": pa.int64(),
        "viewed_at": pa.timestamp("us", tz="UTC"),
        "seconds_watched": pa.int32(),
        "completed": pa.bool_(),
    }
)


def replace_input(
    dsn: str,
    *,
    drops: pa.Table | None,
    drop_days: Sequence[dt.date],
    viewings: pa.Table | None,
    viewing_days: Sequence[dt.date],
) -> None:
    """Put drops and viewings in place of what there is of the same days, in one transaction.

    Args:
        dsn: The input database, through the role of the systems that fill it.
        drops: With `EPISODES_SCHEMA`.
        drop_days: The `batch_date`s to replace.
        viewings: With `VIEWINGS_SCHEMA`. Those without a time replace what there is without a time.
        viewing_days: The UTC dates to replace.
    """
    with connect_arrow(dsn) as connection, connection.cursor() as cursor:
        if drops is not None:
            days = [day.isoformat() for day in drop_days]
            cursor.execute("DELETE FROM episodes WHERE batch_date = ANY ($1::text[]::date[])", (days,))
            cursor.adbc_ingest("episodes", drops, mode="append")
        if viewings is not None:
            days = [day.isoformat() for day in viewing_days]
            cursor.execute(
                """
                DELETE FROM viewings USING unnest($1::text[]) AS day
                WHERE viewed_at >= day::date::timestamp AT TIME ZONE 'UTC'
                    AND viewed_at < (day::date + 1)::timestamp AT TIME ZONE 'UTC'
                """,
                (days,),
            )
            if viewings["viewed_at"].null_count:
                cursor.execute("DELETE FROM viewings WHERE viewed_at IS NULL")
            cursor.adbc_ingest("viewings", viewings, mode="append")
        connection.commit()

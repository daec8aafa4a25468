"""Write sample days into an input database."""

import datetime as dt
from collections.abc import Callable

import pandas as pd
import pyarrow as pa

from episodes_assets.days import ONE_DAY, days_between
from episodes_assets.sample.catalogue import sample_drop
from episodes_assets.sample.viewings import sample_viewings
from episodes_assets.stores.input_writing import EPISODES_SCHEMA, VIEWINGS_SCHEMA, replace_input

Report = Callable[[dt.date, int, int], None]


def generate_input(
    dsn: str,
    *,
    episodes: int,
    seed: int,
    first: dt.date,
    last: dt.date,
    history_days: int,
    report: Report,
) -> None:
    """Fill the input with the drops of some days and with the viewings up to each of them.

    A day's rows depend on the seed, the number of episodes and the day alone, so days may be
    generated in any order; a day that is there is replaced.

    Args:
        dsn: The input database, through the role of the systems that fill it.
        episodes: Episodes there will ever be; the drops grow towards about 1.9 rows for each.
        seed: Of all randomness.
        first: The first drop.
        last: The last drop.
        history_days: For how many days before `first` there are viewings.
        report: Is told each day with its drop's rows and its viewings.
    """
    for day in days_between(first - history_days * ONE_DAY, last):
        drop = sample_drop(episodes, seed, day) if day >= first else None
        viewings = sample_viewings(episodes, seed, day)
        replace_input(
            dsn,
            drops=None if drop is None else _drop_table(drop, day),
            drop_days=[day],
            viewings=_viewings_table(viewings),
            viewing_days=[day],
        )
        report(day, 0 if drop is None else len(drop), len(viewings))


def _drop_table(drop: pd.DataFrame, day: dt.date) -> pa.Table:
    rows = drop.assign(batch_date=pd.Timestamp(day).as_unit("s"))
    loose = pa.Table.from_pandas(rows[EPISODES_SCHEMA.names], preserve_index=False)
    return loose.replace_schema_metadata(None).cast(EPISODES_SCHEMA)


def _viewings_table(viewings: pd.DataFrame) -> pa.Table:
    loose = pa.Table.from_pandas(viewings[VIEWINGS_SCHEMA.names], preserve_index=False)
    at = loose["viewed_at"].cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    loose = loose.set_column(loose.schema.get_field_index("viewed_at"), "viewed_at", at)
    return loose.replace_schema_metadata(None).cast(VIEWINGS_SCHEMA)

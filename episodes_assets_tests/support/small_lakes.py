"""Lakes of a few viewings, written and read as the product does."""

import datetime as dt

import numpy as np
import pyarrow as pa

from episodes_assets.lake.viewings import Viewings, schema_of

FIRST = dt.date(2018, 3, 1)

ONE_DAY = dt.timedelta(days=1)

SCHEMA = schema_of(pa.int64())


def rows_of(day: dt.date, *viewings: tuple[int | None, int], unreadable: str | None = None) -> pa.Table:
    """Viewings of a day: each of an episode, so many seconds after midnight."""
    midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
    return pa.Table.from_pylist(
        [
            {
                "epid": epid,
                "viewer_id": number,
                "viewed_at": midnight + dt.timedelta(seconds=second),
                "seconds_watched": second,
                "completed": None if unreadable else number % 2 == 0,
                "completed_as_found": unreadable,
            }
            for number, (epid, second) in enumerate(viewings)
        ],
        SCHEMA,
    )


def take(lake: Viewings, *taken: pa.Table, days: list[dt.date], **facts: str) -> int:
    files = [
        lake.write(day, pa.RecordBatchReader.from_batches(each.schema, each.to_batches())).file
        for day, each in zip(days, taken, strict=True)
    ]
    return lake.commit(taken[0].schema, lambda _: files, environment="development", facts=facts).number


def read(lake: Viewings, version: int, since: dict[int, dt.date], until: dt.date) -> list[pa.Table]:
    epids = np.array(sorted(since), np.int64)
    begins = np.array([since[int(epid)] for epid in epids], "datetime64[D]")
    parts = list(lake.read(version, epids, begins, until))
    assert [upto for upto, _ in parts] == sorted({upto for upto, _ in parts})
    assert parts[-1][0] == epids[-1]
    for upto, table in parts:
        assert all(epid <= upto for epid in table["epid"].to_pylist())
    return [table for _, table in parts]

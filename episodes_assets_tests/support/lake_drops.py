"""Drops written to a lake of their own."""

import datetime as dt

import numpy as np
import pandas as pd

from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.drops import Drops
from episodes_assets.planning.drop import SCHEMA, validate_drop
from episodes_assets_tests.support.drops import drop

DAY = dt.date(2018, 3, 1)


def write(drops: Drops, *epids: int, day: dt.date = DAY, reason: str = "") -> Drop:
    """A day's files, which nothing names yet: the given episodes, and one row that is refused."""
    with drops.writer(day, reason=reason) as writer:
        writer.add(validate_drop(drop(*({"epid": epid} for epid in (*epids, -1)))))
        return writer.finish(np.array([3, 5]), len(epids) + 1)


def take(
    drops: Drops, *epids: int, day: dt.date = DAY, reason: str = "", environment: str = "development"
) -> Drop:
    written = write(drops, *epids, day=day, reason=reason)
    drops.commit([written], environment)
    return written


def read(drops: Drops, of: Drop) -> pd.DataFrame:
    return pd.concat(drops.read_drop(of, SCHEMA.names))

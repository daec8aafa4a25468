"""Drops of a few rows."""

import datetime as dt
from typing import Any

import pandas as pd

OK = dt.date(2018, 1, 1)


def drop(*rows: dict[str, Any]) -> pd.DataFrame:
    """Good rows with the given changes."""
    good = {
        "epid": 1,
        "algorithm_id": 0,
        "series": "s",
        "season": 1,
        "episode": 1,
        "title": "t",
        "premier_date": OK,
        "start_date": OK,
    }
    frame = pd.DataFrame([{**good, **row} for row in rows], columns=list(good))
    return frame.astype(
        {
            "epid": "Int64",
            "algorithm_id": "Int64",
            "season": "Int32",
            "episode": "Int32",
            "premier_date": "datetime64[s]",
            "start_date": "datetime64[s]",
        }
    )

"""Sample drops: a catalogue that grows, premieres that come, rows that are wrong."""

import datetime as dt

import numpy as np
import pandas as pd

from episodes_assets.days import FIRST_DAY

ANNOUNCED_DAYS = 14
ROLLING_DAYS = 27
MESSY_SHARE = 0.004
_EPOCH = dt.date(1970, 1, 1)


def sample_episodes(episodes: int, seed: int) -> pd.DataFrame:
    """The episodes there will ever be.

    Returns:
        By position: `epid`, `series`, `season`, `episode`, `title`, `premier_date` (datetime64[s]),
        `length` (seconds). Most premiered in the three years before 2018-03-01, the others in the
        year after it.
    """
    random = np.random.default_rng([seed, 0])
    number = np.arange(episodes)
    series = number // 10
    offset = np.where(
        random.random(episodes) < 0.75,
        -(1095 * random.random(episodes) ** 1.5).astype(np.int64),
        (365 * random.random(episodes)).astype(np.int64) + 1,
    )
    return pd.DataFrame(
        {
            "epid": 100_000 + number * 7,
            "series": "Series " + pd.Series(series + 1).astype("str"),
            "season": (series % 5 + 1).astype(np.int32),
            "episode": (number % 10 + 1).astype(np.int32),
            "title": "Episode " + pd.Series(number % 10 + 1).astype("str"),
            "premier_date": _dates(FIRST_DAY, offset),
            "length": random.integers(1_200, 3_600, episodes),
        }
    )


def sample_drop(episodes: int, seed: int, day: dt.date) -> pd.DataFrame:
    """The drop of a day, with the columns of the input table except `batch_date`."""
    random = np.random.default_rng([seed, 1, day.toordinal()])
    catalogue = sample_episodes(episodes, seed).drop(columns="length")
    today = pd.Timestamp(day).as_unit("s")
    announced = catalogue["premier_date"] <= today + pd.Timedelta(days=ANNOUNCED_DAYS)
    catalogue = catalogue[announced]
    wants = np.random.default_rng([seed, 2]).random((episodes, 2))[announced.to_numpy()]
    drop = pd.concat(
        [
            catalogue.assign(algorithm_id=0),
            catalogue[wants[:, 0] < 0.5].assign(algorithm_id=1),
            catalogue[wants[:, 1] < 0.35].assign(algorithm_id=2),
        ],
        ignore_index=True,
    )
    rolling = _dates(day, np.full(len(drop), -ROLLING_DAYS))
    drop["start_date"] = drop["premier_date"].where(drop["premier_date"] > rolling, rolling)
    later = random.random(len(drop)) < 0.05
    drop.loc[later, "start_date"] = pd.Timestamp(day).as_unit("s") + pd.Timedelta(days=3)
    columns = [
        "epid",
        "algorithm_id",
        "series",
        "season",
        "episode",
        "title",
        "premier_date",
        "start_date",
    ]
    return _add_mess(drop.astype({"epid": "Int64", "algorithm_id": "Int64"})[columns], random)


def _add_mess(drop: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Append copies of some rows, each wrong in one way, and shuffle all."""
    wrong: list[dict[str, object]] = [
        {"epid": pd.NA},
        {"epid": -17},
        {"algorithm_id": pd.NA},
        {"algorithm_id": 7},
        {"algorithm_id": 0, "premier_date": pd.NaT},
        {"premier_date": pd.Timestamp("0001-01-01").as_unit("s")},
        {"start_date": pd.NaT},
        {"start_date": pd.Timestamp("9999-12-31").as_unit("s")},
        {},  # a plain duplicate
        {"title": 'An \N{CLAPPER BOARD} "quoted"\ntitle'},
    ]
    each = max(1, int(len(drop) * MESSY_SHARE / len(wrong)))
    copies = [
        drop.iloc[random.integers(0, len(drop), each)]
        .assign(**change)  # type: ignore[arg-type]
        .astype(drop.dtypes)
        for change in wrong
    ]
    messy = pd.concat([drop, *copies], ignore_index=True)
    return messy.iloc[random.permutation(len(messy))].reset_index(drop=True)


def _dates(origin: dt.date, offset_days: np.ndarray) -> pd.Series:
    days = (origin - _EPOCH).days + offset_days.astype(np.int64)
    return pd.Series(days.astype("datetime64[D]").astype("datetime64[s]"))

"""The generated sample: a catalogue that grows, viewings of it, and writing both into an input database.

Deterministic: realistic in shape, messy where real input is. Premieres come, some rows are wrong, few
episodes are watched by many and many by few, most of it in the evening. Real files are `files`' to read.
"""

import datetime as dt
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa

from episodes_assets.days import FIRST_DAY, ONE_DAY, days_between
from episodes_assets.input.loading import EPISODES_SCHEMA, VIEWINGS_SCHEMA, replace_input

ANNOUNCED_DAYS = 14
ROLLING_DAYS = 27
MESSY_ROWS_SHARE = 0.004
_EPOCH = dt.date(1970, 1, 1)


def sample_episodes(episodes: int, seed: int) -> pd.DataFrame:
    """All episodes of the sample, those that premiere later included.

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
    each = max(1, int(len(drop) * MESSY_ROWS_SHARE / len(wrong)))
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


VIEWS_PER_EPISODE = 1.5
ZIPF_EXPONENT = 0.9
MESSY_VIEWINGS_SHARE = 0.002


def sample_viewings(episodes: int, seed: int, day: dt.date) -> pd.DataFrame:
    """The viewings of a UTC day, with the columns of the input table.

    Returns:
        `epid`, `viewer_id`, `viewed_at` (datetime64[us], UTC without zone), `seconds_watched`
        (int32), `completed`.
    """
    random = np.random.default_rng([seed, 3, day.toordinal()])
    catalogue = sample_episodes(episodes, seed)
    popularity = np.random.default_rng([seed, 4]).permutation(episodes) + 1.0
    weight = popularity**-ZIPF_EXPONENT
    weight[catalogue["premier_date"].to_numpy() > np.datetime64(day)] = 0
    views = int(episodes * VIEWS_PER_EPISODE)
    watched = random.choice(episodes, size=views, p=weight / weight.sum())
    share = np.minimum(random.beta(2.0, 1.0, views) * 1.15, 1.0)
    hour = np.clip(random.normal(19.5, 3.5, views), 0, 23.999)
    seconds_of_day = (hour * 3600).astype("timedelta64[s]")
    viewings = pd.DataFrame(
        {
            "epid": catalogue["epid"].to_numpy()[watched],
            "viewer_id": random.integers(1, episodes * 5 + 2, views),
            "viewed_at": np.datetime64(day, "us") + seconds_of_day,
            "seconds_watched": (share * catalogue["length"].to_numpy()[watched]).astype(np.int32),
            "completed": share > 0.92,
        }
    )
    messy = max(1, int(views * MESSY_VIEWINGS_SHARE))
    unknown, negative, absurd = random.integers(0, views, (3, messy))
    viewings.loc[unknown, "epid"] = 9
    viewings.loc[negative, "seconds_watched"] = -5
    viewings.loc[absurd, "seconds_watched"] = 2_000_000_000
    return viewings


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
        episodes: How many episodes the sample has; the drops grow towards about 1.9 rows for each.
        seed: Of the random generators.
        first: The first drop.
        last: The last drop.
        history_days: For how many days before `first` there are viewings.
        report: Called with each day, its drop's rows and its viewings.
    """
    for day in days_between(first - history_days * ONE_DAY, last):
        drop = sample_drop(episodes, seed, day) if day >= first else None
        viewings = sample_viewings(episodes, seed, day)
        replace_input(
            dsn,
            drops=None if drop is None else drop_table(drop, day),
            drop_days=[day],
            viewings=viewings_table(viewings),
            viewing_days=[day],
        )
        report(day, 0 if drop is None else len(drop), len(viewings))


def drop_table(drop: pd.DataFrame, day: dt.date) -> pa.Table:
    """A day's drop as rows of the input's table `episodes` (`EPISODES_SCHEMA`)."""
    rows = drop.assign(batch_date=pd.Timestamp(day).as_unit("s"))
    loose = pa.Table.from_pandas(rows[EPISODES_SCHEMA.names], preserve_index=False)
    return loose.replace_schema_metadata(None).cast(EPISODES_SCHEMA)


def viewings_table(viewings: pd.DataFrame) -> pa.Table:
    """Viewings as rows of the input's table `viewings` (`VIEWINGS_SCHEMA`)."""
    loose = pa.Table.from_pandas(viewings[VIEWINGS_SCHEMA.names], preserve_index=False)
    at = loose["viewed_at"].cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    loose = loose.set_column(loose.schema.get_field_index("viewed_at"), "viewed_at", at)
    return loose.replace_schema_metadata(None).cast(VIEWINGS_SCHEMA)

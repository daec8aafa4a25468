"""Sample viewings: few episodes watched by many, many by few, most of it in the evening."""

import datetime as dt

import numpy as np
import pandas as pd

from episodes_assets.sample.catalogue import sample_episodes

VIEWS_PER_EPISODE = 1.5
ZIPF_EXPONENT = 0.9
MESSY_SHARE = 0.002


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
    messy = max(1, int(views * MESSY_SHARE))
    unknown, negative, absurd = random.integers(0, views, (3, messy))
    viewings.loc[unknown, "epid"] = 9
    viewings.loc[negative, "seconds_watched"] = -5
    viewings.loc[absurd, "seconds_watched"] = 2_000_000_000
    return viewings

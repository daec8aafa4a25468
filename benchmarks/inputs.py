"""Inputs of production size, deterministic: a drop, its viewings, and the state before it.

The day under measurement is `DAY`. Its catalogue has two rows for each episode, one of them for `reach`.
The *live* episodes are tracked; the others premiere later and yield no job. On `DAY` just the *viewed*
ones among the live are watched, so the day has exactly two jobs for each of them.
"""

import datetime as dt

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from episodes_assets.input.loading import EPISODES_SCHEMA, VIEWINGS_SCHEMA

DAY = dt.date(2018, 6, 1)
ZIPF_EXPONENT = 0.6
_LIVE_BEFORE = np.timedelta64(400, "D")

Ints = npt.NDArray[np.int64]


def epids(first: int, count: int) -> Ints:
    """`count` distinct episode ids, the same for the same arguments."""
    return 1_000_000 + 7 * np.arange(first, first + count, dtype=np.int64)


def drop(rows: int, live: int, *, day: dt.date = DAY, window_days: int = 3, catching_up: int = 0) -> pa.Table:
    """A day's drop.

    Args:
        rows: How many catalogue rows.
        live: How many episodes have premiered; the first so many.
        day: The drop's day.
        window_days: Length of the windows that the rows ask for.
        catching_up: So many of the live episodes premiered 400 days before; the others lately.
    """
    number = np.arange(rows, dtype=np.int64)
    episode = number // 2
    today = np.datetime64(day, "D")
    premiered = np.where(
        episode < live,
        np.where(episode < catching_up, today - _LIVE_BEFORE, today - np.timedelta64(30, "D")),
        today + np.timedelta64(30, "D"),
    )
    other = 1 + episode % 2
    series = pa.array([f"The long-running series number {n}" for n in range(int(episode[-1]) // 10 + 1)])
    titles = pa.array([f"Episode {n}: in which something happens at last" for n in range(1000)])
    in_order = pa.table(
        [
            pa.array(np.full(rows, today)),
            pa.array(1_000_000 + 7 * episode),
            pa.array(np.where(number % 2 == 0, 0, other).astype(np.int16)),
            series.take(pa.array(episode // 10)),
            pa.array((episode // 10 % 5 + 1).astype(np.int32)),
            pa.array((episode % 10 + 1).astype(np.int32)),
            titles.take(pa.array(episode % 1000)),
            pa.array(premiered),
            pa.array(np.full(rows, today - np.timedelta64(window_days - 1, "D"))),
        ],
        schema=EPISODES_SCHEMA,
    )
    # A real drop comes in no order.
    return in_order.take(pa.array(np.random.default_rng(day.toordinal()).permutation(rows)))


def viewings(day: dt.date, count: int, among: int, *, seed: int = 1, everyone: bool = False) -> pa.Table:
    """A day's viewings of the first `among` episodes, few of them watched by many.

    Args:
        day: The UTC day.
        count: How many viewings.
        among: How many episodes.
        seed: Of the randomness.
        everyone: Let each of the episodes be watched at least once.
    """
    random = np.random.default_rng([seed, day.toordinal()])
    weight = (np.random.default_rng(seed).permutation(among) + 1.0) ** -ZIPF_EXPONENT
    watched = np.searchsorted(np.cumsum(weight / weight.sum()), random.random(count)).clip(0, among - 1)
    if everyone:
        watched[:among] = np.arange(among)
    at = np.datetime64(day, "us") + random.integers(0, 86_399_000_000, count).astype("timedelta64[us]")
    seconds = random.integers(0, 3_600, count).astype(np.int32)
    return pa.table(
        [
            pa.array(1_000_000 + 7 * watched),
            pa.array(random.integers(1, 5_000_000, count)),
            pa.array(np.sort(at)).cast(pa.timestamp("us", tz="UTC")),
            pa.array(seconds),
            pa.array(seconds > 3_200),
        ],
        schema=VIEWINGS_SCHEMA,
    )


def daily_viewings(days: list[dt.date], epids: Ints, random: np.random.Generator) -> pa.Table:
    """One viewing of each episode on each day."""
    count = len(days) * len(epids)
    noon = np.repeat(np.array(days, dtype="datetime64[us]") + np.timedelta64(12, "h"), len(epids))
    return pa.table(
        [
            pa.array(np.tile(epids, len(days))),
            pa.array(random.integers(1, 5_000_000, count)),
            pa.array(noon).cast(pa.timestamp("us", tz="UTC")),
            pa.array(random.integers(0, 3_600, count).astype(np.int32)),
            pa.array(random.random(count) < 0.2),
        ],
        schema=VIEWINGS_SCHEMA,
    )

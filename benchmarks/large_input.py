"""Days too large to be loaded from here: the server of the input makes them, in sets.

What is made is the same each time: the server's random numbers begin with one seed.
"""

import datetime as dt
import shutil
import tempfile
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from benchmarks import inputs
from episodes_assets_tests.support.system import System

VIEWERS = 5_000_000
# The ids of `inputs.epids`, the few that many watch among them as in `inputs.viewings`: of a density that
# falls with the rank to the power of 0.6, `episodes * u ^ 2.5` is the rank at the share u of all viewings.
_VIEWINGS = """
    INSERT INTO viewings (epid, viewer_id, viewed_at, seconds_watched, completed)
    SELECT epid, viewer_id, viewed_at, seconds, seconds > 3200
    FROM (
        SELECT
            1000000 + 7 * floor(%(episodes)s * random() ^ %(power)s)::bigint AS epid,
            1 + floor(%(viewers)s * random())::bigint AS viewer_id,
            %(day)s::date::timestamp AT TIME ZONE 'UTC' + random() * interval '86399 seconds' AS viewed_at,
            floor(3600 * random())::integer AS seconds
        FROM generate_series(1, %(viewings)s::bigint)
    ) AS made
"""
# One on the day, so that it yields jobs; the others on the day and those before it.
_OF_EACH_EPISODE = """
    INSERT INTO viewings (epid, viewer_id, viewed_at, seconds_watched, completed)
    SELECT epid, viewer_id, viewed_at, seconds, seconds > 3200
    FROM (
        SELECT
            1000000 + 7 * episode AS epid,
            1 + floor(%(viewers)s * random())::bigint AS viewer_id,
            (%(day)s::date - (number > 0)::integer * floor(%(days)s * random())::integer)::timestamp
                AT TIME ZONE 'UTC' + random() * interval '86399 seconds' AS viewed_at,
            floor(3600 * random())::integer AS seconds
        FROM generate_series(0, %(episodes)s::bigint - 1) AS episode,
            generate_series(0, %(each)s - 1) AS number
    ) AS made
"""
# Two rows for each episode, as in `inputs.drop`, in no order.
_DROP = """
    INSERT INTO episodes (
        batch_date, epid, algorithm_id, series, season, episode, title, premier_date, start_date
    )
    SELECT %(day)s, 1000000 + 7 * (number / 2), CASE WHEN number %% 2 = 0 THEN 0 ELSE 1 + number / 2 %% 2 END,
        'The long-running series number ' || number / 20, number / 20 %% 5 + 1, number / 2 %% 10 + 1,
        'Episode ' || number / 2 %% 1000 || ': in which something happens at last',
        %(day)s::date - 30, %(day)s::date - %(days)s + 1
    FROM generate_series(0, %(rows)s::bigint - 1) AS number
    ORDER BY hashint8(number)
"""


def require_room(system: System, needed: int, what: str) -> None:
    """Refuse what does not fit on the disks that it is written to."""
    cluster = (system.home / "postgres").resolve()
    for folder in {cluster, Path(system.settings.lake).parent, Path(tempfile.gettempdir())}:
        free = shutil.disk_usage(folder).free
        if free < needed:
            pytest.fail(
                f"{what} need {needed / 1e9:,.0f} GB of disk, {folder} has {free / 1e9:,.0f} GB free: free "
                "some, or set TMPDIR to a folder on a larger disk",
                pytrace=False,
            )


def begin_anew(system: System) -> None:
    """Empty the input, and let it be filled soonest: without a log, and without an index nothing reads by.

    What is measured reads the input and does not write to it.
    """
    system.query("input", "TRUNCATE episodes, viewings")
    for table in ("episodes", "viewings"):
        system.query("input", f"ALTER TABLE {table} SET UNLOGGED")
    system.query("input", "DROP INDEX IF EXISTS viewings_epid_viewed_at, viewings_viewed_at")


def make_viewings(system: System, day: dt.date, viewings: int, episodes: int) -> None:
    """Viewings of one day, few episodes among them watched by many."""
    power = 1 / (1 - inputs.ZIPF_EXPONENT)
    _make(system, _VIEWINGS, day=day, viewings=viewings, episodes=episodes, power=power)


def make_viewings_of_each(system: System, day: dt.date, episodes: int, *, each: int, days: int) -> None:
    """As many viewings of each episode, over some days up to one on which all are watched."""
    _make(system, _OF_EACH_EPISODE, day=day, episodes=episodes, each=each, days=days)


def make_drop(system: System, day: dt.date, rows: int, *, window_days: int) -> None:
    """A drop that asks for a job for each of its rows."""
    _make(system, _DROP, day=day, rows=rows, days=window_days)


def finish(system: System) -> None:
    """Let the input be as its owners keep it."""
    system.query("input", "CREATE INDEX viewings_viewed_at ON viewings (viewed_at)")
    system.query("input", "VACUUM ANALYZE")


def _make(system: System, statement: LiteralString, **values: object) -> None:
    with psycopg.connect(system.admin["input"], autocommit=True) as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(statement, {"viewers": VIEWERS, **values})

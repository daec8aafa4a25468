"""The Results page over a long history: every kind of page, asked of days that nobody has just looked at.

One row of it is explained as well, by the command.

The rows are made by PostgreSQL itself. A day has half of its rows of `reach` and half of the other
algorithms, of other episodes than the days beside it, out of a catalogue of as many as a full drop has.
"""

import datetime as dt
import statistics
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from benchmarks.conftest import Measure, forget_days
from benchmarks.processes import run_explain
from benchmarks.sizes import Sizes
from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.results import results_routes
from episodes_assets.days import FIRST_DAY, ONE_DAY
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.fleet_page import SignedIn
from episodes_assets_tests.support.system import System

GROUP = "the Results page"
REQUESTS = 25
_TITLES = """
    INSERT INTO published.episodes
    SELECT 1000000 + 7 * n, 'The long-running series number ' || n / 10, n / 10 %% 5 + 1, n %% 10 + 1,
        'Episode ' || n || ': in which something happens at last', %(day)s
    FROM generate_series(0, %(episodes)s - 1) AS n
"""
# In the order in which a publication writes them.
_ROWS = """
    INSERT INTO published.results (day, epid, algorithm_id, window_start, window_end, covered_from, metrics)
    SELECT %(day)s, epid, algorithm_id, %(day)s - 27, %(day)s, %(day)s - 27,
        CASE algorithm_id WHEN 0 THEN jsonb_build_object('views', hashed %% 5000, 'viewers', hashed %% 3000,
            'seconds_watched', hashed, 'completed_views', hashed %% 700)
        WHEN 1 THEN jsonb_build_object('views_last_7_days', hashed %% 900, 'views_previous_7_days',
            hashed %% 800, 'daily_slope', (hashed %% 2000 - 1000) / 128.0)
        ELSE jsonb_build_object('share_completed', hashed %% 128 / 128.0, 'mean_share', hashed %% 64 / 64.0,
            'median_share', hashed %% 32 / 32.0) END
    FROM (
        SELECT 1000000 + 7 * place AS epid, algorithm_id,
            hashint8(place * 1000 + %(number)s)::bigint & 2147483647 AS hashed
        FROM generate_series(0, %(rows)s / 2 - 1) AS n,
            LATERAL (SELECT n * %(stride)s + %(number)s %% %(stride)s AS place) AS placed,
            LATERAL (VALUES (0), (1 + n %% 2)) AS asked (algorithm_id)
        ORDER BY n, algorithm_id
    ) AS made
"""
_DAY = """
    INSERT INTO published.days (day, jobs, rows, checksum, plan_id, plan_checksum, code_version)
    VALUES (%(day)s, %(rows)s, %(rows)s, 'c', 1, 'c', '1')
"""


PAGES = {
    "the first rows": "/results/{day}/reach",
    "rows by another metric": "/results/{day}/reach?sort=seconds_watched&order=asc",
    "rows in the middle": "/results/{day}/reach?sort=views&order=desc&after=2500~1000000",
    "rows by a share": "/results/{day}/retention?sort=mean_share&order=desc",
    "rows by id": "/results/{day}/reach?sort=epid&order=asc&after=3000000~3000000",
    "a search by title": "/results/{day}/reach?q=EPISODE+77",
    "a search by id": "/results/{day}/reach?q=1000007",
    "movers": "/results/{day}/reach/movers",
    "an episode over all days": "/results/{last}/reach/episodes/{epid}",
}


@pytest.fixture(scope="module")
def history(system: System, sizes: Sizes) -> Iterator[list[dt.date]]:
    """The published days."""
    forget_days(system)
    episodes = sizes.drop_rows // 2
    days = [FIRST_DAY + number * ONE_DAY for number in range(sizes.results_days)]
    with psycopg.connect(system.admin["results"], autocommit=True) as admin:
        # Not logged, because nothing of it outlives the benchmark: it takes half the time.
        admin.execute("ALTER TABLE published.results SET UNLOGGED")
        admin.execute(_TITLES, {"day": days[-1], "episodes": episodes})
        for number, day in enumerate(days):
            values = {"day": day, "number": number, "rows": sizes.jobs, "stride": 2 * episodes // sizes.jobs}
            admin.execute(_ROWS, values)
            admin.execute(_DAY, values)
        admin.execute("VACUUM ANALYZE published.results, published.days, published.episodes")
        yield days
        admin.execute("TRUNCATE published.results, published.days, published.episodes")
        admin.execute("ALTER TABLE published.results SET LOGGED")


@pytest.fixture(scope="module")
def browser(system: System) -> TestClient:
    routes = results_routes(system.dsn(Purpose.CONSUMER))
    return TestClient(SignedIn(Starlette(routes=routes), Role.VIEWER))


@pytest.mark.parametrize("name", PAGES)
def test_a_page(
    measure: Measure, history: list[dt.date], browser: TestClient, sizes: Sizes, name: str
) -> None:
    # Of all the history, and each day once: a page is quick also where nobody has just been.
    step = max(len(history) // REQUESTS, 1)
    asked = list(enumerate(history[len(history) - 1 :: -step]))

    def timed() -> dict[str, Any]:
        taken = []
        for number, day in asked:
            address = PAGES[name].format(day=day, last=history[-1], epid=1_000_000 + 7 * 28 * number)
            began = time.perf_counter()
            answer = browser.get(address)
            taken.append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
        return {"seconds": statistics.median(taken), "slowest_page": max(taken)}

    days, rows = len(history), sizes.jobs
    measure(GROUP, f"{name}, {rows:,} rows on each of {days:,} days", timed, warm=False, days=days, rows=rows)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_download(measure: Measure, history: list[dt.date], browser: TestClient, form: str) -> None:
    def timed() -> dict[str, Any]:
        began = time.perf_counter()
        answer = browser.get(f"/results/{history[-1]}/reach/rows.{form}")
        assert answer.status_code == 200
        return {"seconds": time.perf_counter() - began, "bytes": len(answer.content)}

    measure("a download", f"half of a day's rows as {form}", timed)


def test_explaining_a_row_of_many_rows(measure: Measure, history: list[dt.date], sizes: Sizes) -> None:
    day, place = history[-1], (len(history) - 1) % (sizes.drop_rows // sizes.jobs)
    name = f"`episodes explain`, {sizes.jobs:,} rows on each of {len(history):,} days"
    measure("explaining", name, lambda: run_explain(day, 1_000_000 + 7 * place, "reach"))

"""The Results page on real results: what it shows, what it refuses, and what is downloaded from it."""

import asyncio
import csv
import inspect
import io
import math
from collections.abc import Callable, Generator, Iterator
from urllib.parse import quote

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.types.json import Jsonb
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard import results as results_page
from episodes_assets.dashboard.downloads import FORMATS
from episodes_assets.dashboard.results import (
    DOWNLOADS_AT_ONCE,
    LONGEST_SEARCH,
    MOVERS_SHOWN,
    ROWS_ON_A_PAGE,
    RowsQuery,
    results_routes,
)
from episodes_assets.errors import LimitReached
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import rows
from episodes_assets_tests.dashboard.served import Dashboard
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.fleet_page import SignedIn, get
from episodes_assets_tests.support.html import Element
from episodes_assets_tests.support.published import forget_published, put_day, put_title, reach
from episodes_assets_tests.support.system import System, day

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>\u202e"
FORMULA = '=HYPERLINK("http://x","y")'
LARGEST = 2**63 - 1
EPISODES = 120
CONSUMERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE usename = 'episodes_consumer' AND datname = current_database()
"""
WIDE = (
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)


@pytest.fixture(scope="module")
def system(dashboard: Dashboard) -> Iterator[System]:
    """Three published days, of which the second has more rows than a page."""
    made = dashboard.system
    views = {epid: 1_000 + epid % 7 for epid in range(1, EPISODES + 1)}
    put_day(made, day(1), dict(zip(views, reach(*(10 * n for n in views.values())), strict=True)))
    put_day(made, day(2), dict(zip(views, reach(*views.values()), strict=True)))
    put_day(made, day(2), {LARGEST: {"views_last_7_days": 5, "daily_slope": -0.125}}, algorithm_id=1)
    put_day(made, day(5), dict(zip([1], reach(3), strict=True)))
    put_title(made, 1, "A series", EVIL, day(2))
    put_title(made, 2, FORMULA, 'a, "b"\nc', day(2))
    put_title(made, LARGEST, None, None, day(2))
    yield made
    forget_published(made)


def browser(system: System, dsn: str | None = "") -> TestClient:
    routes = results_routes(system.dsn(Purpose.CONSUMER) if dsn == "" else dsn)
    return TestClient(SignedIn(Starlette(routes=routes), Role.VIEWER), follow_redirects=False)


def table(page: Element) -> list[list[str]]:
    """The cells of the rows of the only table."""
    return [[cell.text for cell in row.children] for row in page.one("tbody").all("tr")]


def links(page: Element, text: str) -> list[str]:
    return [str(each.attributes["href"]) for each in page.all("a") if each.text == text]


def problem(page: Element) -> str:
    return page.one("p", role="alert").text


def test_the_form_leads_to_the_last_day_and_to_what_was_typed(system: System) -> None:
    client = browser(system)
    first = client.get("/results")
    assert first.status_code == 303
    assert first.headers["location"] == "/results/2018-03-05/reach?sort=views&order=desc"
    typed = client.get("/results?day=+2018-03-02&algorithm=momentum&q=+a%26b+")
    assert typed.headers["location"] == (
        "/results/2018-03-02/momentum?q=a%26b&sort=views_last_7_days&order=desc"
    )
    page = get(client, typed.headers["location"])
    form = page.one("form", action="/results")
    assert form.one("input", id="q").attributes["value"] == "a&b"
    assert form.one("input", id="day").attributes["value"] == "2018-03-02"
    assert [each.text for each in form.all("option") if "selected" in each.attributes] == ["momentum"]
    labels = {each.attributes["for"] for each in page.all("label")}
    assert labels == {"day", "algorithm", "q"}


def test_rows_are_sorted_and_lead_to_the_next_ones(system: System) -> None:
    client = browser(system)
    page = get(client, "/results/2018-03-02/reach")
    shown = table(page)
    assert page.one("h2", id="rows").text == f"Rows: {EPISODES}"
    assert len(shown) == ROWS_ON_A_PAGE
    assert shown[0][2] == "1,006"
    assert "121 rows of all algorithms" in page.text
    heads = {each.text: each.attributes.get("aria-sort") for each in page.one("thead").all("th")}
    assert heads["views ▼"] == "descending"
    assert set(heads.values()) == {None, "descending"}
    assert links(page, "2018-03-01") == ["/results/2018-03-01/reach?sort=views&order=desc"]
    assert links(page, "2018-03-05") == ["/results/2018-03-05/reach?sort=views&order=desc"]
    found = [row[0] for row in shown]
    while following := links(page, "The next ones"):
        page = get(client, following[0])
        found += [row[0] for row in table(page)]
    assert len(found) == len(set(found)) == EPISODES
    assert links(page, "The first ones") == ["/results/2018-03-02/reach?sort=views&order=desc"]
    (ascending,) = links(page, "views ▼")
    assert table(get(client, ascending))[0][2] == "1,000"


def test_each_row_leads_to_its_explanation_and_its_days(system: System) -> None:
    page = get(browser(system), "/results/2018-03-02/reach?sort=epid&order=asc")
    first = page.one("tbody").all("tr")[0]
    assert first.all("a", href="/explain/2018-03-02/1/reach")
    (to_days,) = [str(a.attributes["href"]) for a in first.one("th").all("a")]
    episode = get(browser(system), to_days)
    assert episode.one("h1").text == "Episode 1: reach"
    drawn = episode.one("svg", role="img")
    assert drawn.attributes["aria-label"] == (
        "views of episode 1 from 2018-03-01 to 2018-03-02: at least 1,001, at most 10,010"
    )
    assert len(drawn.all("polyline")) == 1
    assert [row[:2] for row in table(episode)] == [["2018-03-02", "1,001"], ["2018-03-01", "10,010"]]
    later = get(browser(system), "/results/2018-03-05/reach/episodes/2")
    assert [row[1] for row in table(later)] == ["no row", "1,002", "10,020"]
    assert later.all("a", href="/explain/2018-03-05/2/reach")
    never = get(browser(system), "/results/2018-03-05/reach/episodes/999")
    assert "No published day up to 2018-03-05 has a value of it." in never.text
    assert "title not recorded" in never.text


def test_movers_are_compared_with_the_day_before(system: System) -> None:
    client = browser(system)
    page = get(client, "/results/2018-03-02/reach/movers")
    shown = table(page)
    assert len(shown) == MOVERS_SHOWN
    assert shown[0][2:5] == ["10,060", "1,006", "-9,054"]
    assert links(page, "viewers") == ["/results/2018-03-02/reach/movers?sort=viewers&order=desc"]
    same = get(client, "/results/2018-03-02/reach/movers?sort=viewers")
    assert "No episode that has a value on both days has another one." in same.text
    alone = get(client, "/results/2018-03-05/reach/movers")
    assert "The day before is not published, so there is nothing to compare with." in alone.text


def test_a_search_is_literal_and_escaped(system: System) -> None:
    client = browser(system)
    assert len(table(get(client, "/results/2018-03-02/reach?q=<SCRIPT"))) == 1
    for nothing in ("%25", "_", "' OR 1=1 --", "a%"):
        page = get(client, f"/results/2018-03-02/reach?q={quote(nothing)}")
        assert "No row of this day and algorithm has such an id, series or title." in page.text
    page = get(client, f"/results/2018-03-02/reach?q={quote(EVIL)}")
    assert page.all("script") == page.all("img") == []
    assert page.one("h2", id="rows").text == f"Rows with “ {EVIL} ”: 1"
    assert {each.text for each in page.one("tbody").all("bdi")} == {"A series", EVIL}


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("2018-03-03/reach", 404, "2018-03-03 has no published results: the nearest published days are"),
        ("2018-02-01/reach", 404, "days are 2018-03-01"),
        ("someday/reach", 400, "'someday' is not a day"),
        ("2018-03-02/nothing", 400, "'nothing' is not an algorithm: choose one of reach (0)"),
        ("2018-03-02/77", 400, "there is no algorithm 77 that this release can use"),
        ("2018-03-02/reach?sort=views;drop table x", 400, "is not a column of reach: sort by one of epid"),
        ("2018-03-02/reach?sort=epid%20DESC", 400, "'epid DESC' is not a column"),
        ("2018-03-02/reach?order=up", 400, "'up' is not an order"),
        ("2018-03-02/reach?after=x", 400, "'x' is not where a page begins"),
        ("2018-03-02/reach?after=1~9223372036854775808", 400, "is not an episode's id"),
        ("2018-03-02/reach?after=1e5~1", 400, "is not where a page begins"),
        ("2018-03-02/reach?after=" + 1000 * "9" + "~1", 400, "is not where a page begins"),
        ("2018-03-02/reach?q=a%00b", 400, "has a NUL character"),
        ("2018-03-02/reach?q=" + 201 * "a", 400, "has 201 characters: give at most 200"),
        ("2018-03-02/reach?sort=" + 5000 * "a", 400, "is not a column of reach"),
        ("2018-03-02/reach/episodes/x", 400, "'x' is not an episode's id"),
        ("2018-03-02/reach/rows.xls", 400, "'xls' is not a form of the rows: choose one of csv, parquet"),
        ("2018-03-03/reach/rows.csv", 404, "2018-03-03 has no published results"),
        ("2018-03-03/reach/movers", 404, "2018-03-03 has no published results"),
    ],
)
def test_what_cannot_be_shown_is_said_in_plain_words(
    system: System, path: str, status: int, says: str
) -> None:
    page = get(browser(system), f"/results/{path}", status)
    assert says in problem(page)
    assert page.all("form", action="/results")
    assert len(problem(page)) < 2 * LONGEST_SEARCH + 200


def test_a_page_after_the_last_row_is_empty(system: System) -> None:
    page = get(browser(system), "/results/2018-03-02/reach?after=~5&sort=views&order=desc")
    assert "There are no rows after this place." in page.text
    assert links(page, "The first ones")
    none = get(browser(system), "/results/2018-03-05/retention")
    assert "This day has no row of this algorithm." in none.text


def test_what_is_missing_is_named(system: System) -> None:
    page = get(browser(system, None), "/results/2018-03-02/reach", 503)
    assert "EPISODES_CONSUMER_DSN is not set" in problem(page)
    away = get(browser(system, "postgresql://x@127.0.0.1:1/results"), "/results", 503)
    assert "cannot reach x@127.0.0.1:1/results" in problem(away)


def test_before_the_first_publication(system: System) -> None:
    with psycopg.connect(system.admin["results"]) as admin:
        stored = admin.execute("SELECT * FROM published.days").fetchall()
    forgotten = "DELETE FROM published.days"
    try:
        system.query("results", forgotten)
        assert "No day is published yet." in get(browser(system), "/results").text
        page = get(browser(system), "/results/2018-03-02/reach", 404)
        assert problem(page) == "2018-03-02 has no published results: no day is, so far"
    finally:
        for row in stored:
            places = ", ".join(["%s"] * len(row))
            values = [Jsonb(v) if isinstance(v, dict) else v for v in row]
            system.query("results", f"INSERT INTO published.days VALUES ({places})", values)


def test_a_statement_that_takes_too_long_is_ended(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_page, "_TIMEOUTS", "SELECT set_config('statement_timeout', '200ms', false)")
    with psycopg.connect(system.admin["results"]) as other:
        other.execute("LOCK TABLE published.results")
        page = get(browser(system), "/results/2018-03-02/reach", 503)
    assert "took longer" in problem(page) or "time" in problem(page)


def test_csv_is_exact_and_no_formula(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 50)
    answer = browser(system).get("/results/2018-03-02/reach/rows.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="results-2018-03-02-reach.csv"'
    head, *found = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert head == [
        "day", "epid", "algorithm_id", "window_start", "window_end", "covered_from",
        "views", "viewers", "seconds_watched", "completed_views", "series", "season", "episode", "title",
    ]  # fmt: skip
    assert [int(row[1]) for row in found] == list(range(1, EPISODES + 1))
    assert found[0] == [
        "2018-03-02", "1", "0", "2018-03-02", "2018-03-02", "",
        "1001", "1", "2", "0", "A series", "1", "2", EVIL,
    ]  # fmt: skip
    assert found[1][10:] == ["'" + FORMULA, "1", "2", 'a, "b"\nc']
    assert found[2][10:] == ["", "", "", ""]
    other = browser(system).get("/results/2018-03-02/momentum/rows.csv").text.splitlines()
    # A number is never taken for a formula's beginning, and never rounded.
    assert other[1].split(",")[1] == str(LARGEST)
    assert other[1].split(",")[6:9] == ["5", "", "-0.125"]


@pytest.mark.parametrize("first", [*"=+-@\t\r\n", *WIDE])
def test_no_text_begins_like_a_formula(system: System, first: str) -> None:
    system.query("results", "UPDATE published.episodes SET series = %s WHERE epid = 1", [f"{first}1+1"])
    try:
        answer = browser(system).get("/results/2018-03-02/reach/rows.csv?q=1%2B1")
        (_, row) = csv.reader(io.StringIO(answer.text, newline=""))
        assert row[10] == f"'{first}1+1"
    finally:
        system.query("results", "UPDATE published.episodes SET series = 'A series' WHERE epid = 1")


def test_parquet_is_exact(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 50)
    answer = browser(system).get("/results/2018-03-02/reach/rows.parquet")
    file = pq.ParquetFile(io.BytesIO(answer.content))
    assert file.num_row_groups == math.ceil(EPISODES / 50)
    found = file.read().to_pylist()
    assert found[0] | {"title": ""} == {
        "day": day(2), "epid": 1, "algorithm_id": 0, "window_start": day(2), "window_end": day(2),
        "covered_from": None, "views": 1001, "viewers": 1, "seconds_watched": 2, "completed_views": 0,
        "series": "A series", "season": 1, "episode": 2, "title": "",
    }  # fmt: skip
    assert (found[0]["title"], found[1]["series"]) == (EVIL, FORMULA)
    other = browser(system).get("/results/2018-03-02/momentum/rows.parquet").content
    (row,) = pq.read_table(io.BytesIO(other)).to_pylist()
    assert (row["epid"], row["daily_slope"], row["views_previous_7_days"]) == (LARGEST, -0.125, None)
    empty = browser(system).get("/results/2018-03-05/retention/rows.parquet").content
    assert pq.read_table(io.BytesIO(empty)).num_rows == 0


def test_a_download_has_what_was_searched_for(system: System) -> None:
    page = get(browser(system), "/results/2018-03-02/reach?q=series")
    (address,) = links(page, "Download CSV")
    found = list(csv.reader(io.StringIO(browser(system).get(address).text, newline="")))
    assert [row[1] for row in found[1:]] == ["1"]


@pytest.fixture
def downloads(system: System, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Generator[bytes]]:
    """Begins a download of several parts."""
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 50)
    pages = results_page._ResultsPages(system.dsn(Purpose.CONSUMER))
    algorithm = results_page._algorithms()[0]
    asked = RowsQuery(day(2), algorithm, "", results_page._usual_order(algorithm))
    return lambda: pages._download(asked, FORMATS["csv"])


def test_no_more_downloads_go_on_at_once_than_the_role_has_connections_for(
    system: System, downloads: Callable[[], Generator[bytes]]
) -> None:
    under_way = [downloads() for _ in range(DOWNLOADS_AT_ONCE)]
    assert all(next(each).startswith(b"day,epid") for each in under_way)
    assert system.query("results", CONSUMERS) == [(DOWNLOADS_AT_ONCE,)]
    with pytest.raises(LimitReached, match="4 downloads are under way"):
        next(downloads())
    under_way.pop().close()
    assert len(b"".join(downloads()).splitlines()) == EPISODES + 2  # a title has two lines
    for each in under_way:
        each.close()


def test_a_download_that_nobody_reads_any_more_is_ended(
    system: System, downloads: Callable[[], Generator[bytes]]
) -> None:
    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError  # what the server raises once the client is gone

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    chunks = downloads()
    answer = results_page._Download(next(chunks), chunks, FORMATS["csv"], "rows.csv")
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
    with pytest.raises(ClientDisconnect):
        asyncio.run(answer(scope, receive, send))
    assert inspect.getgeneratorstate(chunks) == inspect.GEN_CLOSED
    eventually(lambda: system.query("results", CONSUMERS) == [(0,)])


def test_nobody_without_a_login_sees_it_and_a_viewer_does(system: System, dashboard: Dashboard) -> None:
    served = dashboard.again(pages=tuple(results_routes(system.dsn(Purpose.CONSUMER))))
    for path in ("", "/2018-03-02/reach", "/2018-03-02/reach/movers", "/2018-03-02/reach/rows.csv",
                 "/2018-03-02/reach/rows.parquet", "/2018-03-02/reach/episodes/1"):  # fmt: skip
        refused = served.client().get(f"/results{path}")
        assert refused.status_code == 401
        assert "A series" not in refused.text
        assert served.client(Role.VIEWER).get(f"/results{path}").status_code in (200, 303)
        assert served.client(Role.VIEWER).post(f"/results{path}").status_code == 403
    answer = served.client(Role.VIEWER).get("/results/2018-03-02/reach")
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["cache-control"] == "no-store"
    assert served.client(Role.VIEWER).get("/results/2018-03-02/reach%00").status_code == 400


def test_the_page_reads_as_a_consumer_does(system: System) -> None:
    """No other role is needed: this one sees nothing but what is published."""
    with psycopg.connect(system.dsn(Purpose.CONSUMER), autocommit=True) as consumer:
        consumer.execute("SET default_transaction_read_only = off")
        for statement in (
            "UPDATE published.episodes SET title = 'x'",
            "INSERT INTO published.episodes (epid, day) VALUES (5, '2018-03-01')",
            "SELECT * FROM state.tracked_days",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                consumer.execute(statement)

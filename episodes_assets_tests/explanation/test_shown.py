"""The explanation in the terminal and on the dashboard's page, and what it takes to get it."""

import subprocess
import sys

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.explain import ExplainSources, explain_routes
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.explained import PREMIERE, START
from episodes_assets_tests.support.fleet_page import SignedIn, get
from episodes_assets_tests.support.html import read
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>\x1b[2J\u202e"


def browser(system: System, role: Role = Role.VIEWER, **changes: str | None) -> TestClient:
    found = {
        "queue_dsn": system.dsn(Purpose.QUEUE),
        "results_dsn": system.dsn(Purpose.RESULTS_READER),
        "lake_url": system.settings.lake,
        **changes,
    }
    sources = ExplainSources(**found, quarantine_limit=0.25)  # type: ignore[arg-type]
    return TestClient(SignedIn(Starlette(routes=explain_routes(sources)), role), follow_redirects=False)


def test_the_terminal_says_why(worked: System) -> None:
    shown, _ = output("explain", str(day(3)), "1", "reach")
    lines = shown.splitlines()
    assert lines[0] == "2018-03-03, episode 1, reach: published"
    assert lines[1].startswith("  it is in the results, published 20")
    for words in (
        "  catalogue accepted: a title; premiere 2018-02-01, start 2018-02-20",
        "  viewings  of 2018-02-20 to 2018-03-03, 6 went in, on 3 days;",
    ):
        assert words.split()[1] in shown
    both, _ = output("explain", str(day(3)), "1")
    assert [line for line in both.splitlines() if line.startswith("2018")] == [
        "2018-03-03, episode 1, reach: published",
        "2018-03-03, episode 1, momentum: published",
    ]
    other, _ = output("explain", str(day(3)), "1", "retention")
    assert other.startswith("2018-03-03, episode 1, retention: the catalogue does not ask for it\n")
    negative, _ = output("explain", str(day(3)), "--", "-7")
    assert negative.startswith("2018-03-03, episode -7, reach: refused by validation\n")


def test_every_id_and_day_has_an_answer(worked: System) -> None:
    for of, epid, label in (
        ("2018-03-03", "777", "no record names the episode"),
        ("2018-02-28", "1", "before the first day"),
        ("2999-01-01", "1", "the day is not over"),
        ("2018-03-06", str(2**63 - 1), "the day was not run"),
    ):
        shown, _ = output("explain", of, epid)
        assert shown.splitlines()[0].endswith(label)


def test_what_is_no_question_is_refused_in_one_line(worked: System) -> None:
    assert "'yesterday' is not a day: spell it YYYY-MM-DD" in str(refusal("explain", "yesterday", "1"))
    assert "'one' is not an episode's id: it is a whole number" in str(
        refusal("explain", "2018-03-01", "one")
    )
    assert "'rech' is not an algorithm: choose one of" in str(refusal("explain", "2018-03-01", "1", "rech"))


def test_it_loads_neither_pandas_nor_dagster(worked: System) -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "episodes_assets", "explain", str(day(3)), "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    ).stderr
    packages = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    assert {"deltalake", "pyarrow"} <= packages
    heavy = {
        "adbc_driver_postgresql", "alembic", "dagster", "duckdb", "fsspec", "pandas", "pandera", "pgqueuer",
        "sqlalchemy", "starlette",
    }  # fmt: skip
    assert packages & heavy == set()


def test_a_viewer_sees_the_same_on_the_page(worked: System) -> None:
    client = browser(worked)
    page = get(client, "/explain/2018-03-03/1")
    assert page.one("h1").text == "Episode 1 on 2018-03-03"
    assert [each.text for each in page.all("h2")] == ["reach: published", "momentum: published"]
    assert "It is in the results, published 20" in page.text
    assert "2018-03-01: 2, 2018-03-02: 1, 2018-03-03: 3" in page.text
    one = get(client, "/explain/2018-03-03/4/reach")
    assert [each.text for each in one.all("h2")] == ["reach: refused by validation"]
    assert "Have it corrected at its source, then run `episodes correct 2018-03-03 --reason WHY`." in one.text
    assert [each.attributes["action"] for each in page.all("form", method="post")] == ["/logout"]


def test_a_row_with_a_year_that_python_lacks_is_shown_with_its_rule(worked: System) -> None:
    page = get(browser(worked), "/explain/2018-03-04/9/reach")
    assert "refused: premier_date_implausible: a title; premiere 20180-03-01, start 2018-02-20" in page.text


def test_the_form_leads_to_an_answer(worked: System) -> None:
    client = browser(worked)
    form = get(client, "/explain").one("form", action="/explain")
    assert {each.attributes["name"] for each in form.all("input")} == {"day", "epid"}
    answer = client.get("/explain?day=+2018-03-03&epid=-7+")
    assert (answer.status_code, answer.headers["location"]) == (303, "/explain/2018-03-03/-7")
    get(client, "/explain/2018-03-03/-7")
    for path, problem in (
        ("/explain/someday/1", "'someday' is not a day"),
        ("/explain/2018-03-03/x%22%3E%3Cscript%3E", "is not an episode's id"),
        ("/explain/2018-03-03/1/nothing", "'nothing' is not an algorithm"),
        ("/explain?day=2018-3-3&epid=1", "'2018-3-3' is not a day"),
    ):
        page = get(client, path, 400)
        assert problem in page.one("p", role="alert").text
        assert page.all("form", action="/explain")
    assert get(client, "/explain?day=2018-03-03&epid=x", 400).one("input", id="day").attributes["value"] == (
        "2018-03-03"
    )


def test_what_is_missing_is_named_on_the_page(worked: System) -> None:
    page = get(browser(worked, results_dsn=None), "/explain/2018-03-03/1", 503)
    assert "EPISODES_RESULTS_READER_DSN is not set" in page.one("p", role="alert").text
    away = get(browser(worked, queue_dsn="postgresql://x@127.0.0.1:1/queue"), "/explain/2018-03-03/1", 503)
    assert "cannot reach x@127.0.0.1:1/queue" in away.one("p", role="alert").text
    elsewhere = get(browser(worked, lake_url=str(worked.home / "nowhere")), "/explain/2018-03-03/1")
    assert "not known any more: the lake has no drop" in elsewhere.text
    assert "reach: published" in elsewhere.text


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM published.results",
        "UPDATE state.tracked_episodes SET tracked_on = '2018-03-01'",
        "INSERT INTO published.repairs (day, what, reason, repaired_by) VALUES ('2018-03-01', 'x', 'x', 'x')",
        "SELECT * FROM state.locks",
        "CREATE TABLE mine ()",
    ],
)
def test_the_reader_of_results_can_only_read(worked: System, statement: str) -> None:
    with psycopg.connect(worked.dsn(Purpose.RESULTS_READER), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


@pytest.mark.long
def test_nothing_from_data_acts_on_a_terminal_or_a_browser(system: System) -> None:
    system.insert_drop(day(1), [(1, 0, PREMIERE, START)])
    system.query("input", "UPDATE episodes SET title = %s", [EVIL])
    system.plan(day(1))
    shown, _ = output("explain", str(day(1)), "1")
    assert "<script>alert('x')</script>" in shown.replace("\n", "")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    page = get(browser(system), "/explain/2018-03-01/1")
    assert "<script>alert('x')</script>" in page.text
    assert read(browser(system).get("/explain/2018-03-01/1").text).all("script") == []

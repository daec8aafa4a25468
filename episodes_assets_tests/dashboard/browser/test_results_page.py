"""The Results page in a browser: found by keyboard, read by its roles, and nothing of a title is executed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.auth.credentials import cookie_name
from episodes_assets.dashboard.configuration import read_configuration
from episodes_assets.dashboard.results import results_routes
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.dashboard.served import THIS_USER, serve_dashboard, serving
from episodes_assets_tests.support.published import put_day, put_title
from episodes_assets_tests.support.system import System, day

EVIL = "<img src=x onerror=\"document.title='executed'\">"
SERIES = ("The long way home", "Night shift", "A house by the lake", "Signals", "Eleven summers")
EPISODES = 60
DAYS = 40


@pytest.fixture
def address(system: System, person: Callable[[], Page]) -> Iterator[tuple[str, str]]:
    """A dashboard on a real port over days that are published, and a viewer's session."""
    for number in range(1, DAYS + 1):
        put_day(
            system,
            day(number),
            {
                epid: {
                    "views": (epid * 7_919 + number * number * (epid % 5)) % 9_973,
                    "viewers": (epid * 31 + number) % 4_001,
                    "seconds_watched": epid * 61_001 % 9_999_991,
                    "completed_views": epid % 97,
                }
                for epid in range(100, 100 + EPISODES)
                if (epid + number) % 29
            },
        )
    for epid in range(100, 100 + EPISODES - 3):
        title = EVIL if epid == 101 else f"Episode {epid % 10 + 1}"
        put_title(system, epid, SERIES[epid % 5], title, day(DAYS))
    with serve_dashboard(system) as dashboard:
        pages = tuple(results_routes(system.dsn(Purpose.CONSUMER)))
        free_port = read_configuration(system.settings, host="127.0.0.1", port=0)
        served = dashboard.again(pages=pages, **vars(free_port))
        with serving(served.app, served.configuration) as port:
            yield f"http://127.0.0.1:{port}", dashboard.session(Role.VIEWER, client=THIS_USER)


@pytest.mark.slow
def test_results_are_found_with_the_keyboard(
    address: tuple[str, str], person: Callable[[], Page], tmp_path: Path
) -> None:
    home, session = address
    page = person()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.context.add_cookies([{"name": cookie_name(is_secure=False), "value": session, "url": home}])
    page.goto(f"{home}/results")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Results of {day(DAYS)}: reach")
    views = page.get_by_role("columnheader", name="views", exact=False).first
    expect(views).to_have_attribute("aria-sort", "descending")
    views.get_by_role("link").focus()
    page.keyboard.press("Enter")
    expect(views).to_have_attribute("aria-sort", "ascending")
    search = page.get_by_role("searchbox", name="Id, series or title")
    search.fill("ONERROR=")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("cell", name=EVIL)).to_be_visible()
    assert page.title().startswith("Results of")
    page.get_by_role("link", name="Episode 101 over its days").click()
    expect(page.get_by_role("img", name="views of episode 101 from")).to_be_visible()
    page.get_by_role("link", name=str(day(DAYS)), exact=True).click()
    page.get_by_role("link", name="Movers").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Movers of")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download CSV").click()
    saved = tmp_path / "saved.csv"
    started.value.save_as(saved)
    assert started.value.suggested_filename == f"results-{day(DAYS)}-reach.csv"
    assert saved.read_text().startswith("day,epid,")
    # A narrow window scrolls the table, and not the page.
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(f"{home}/results")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert errors == []

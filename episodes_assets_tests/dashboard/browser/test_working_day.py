"""A working day in the browser: everything people do, clicked, on the whole system."""

import re
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from playwright.sync_api import Page, expect

from episodes_assets.settings import WITHHELD
from episodes_assets_tests.dashboard.browser.conftest import WIDE, Running
from episodes_assets_tests.support import dashboard_pages
from episodes_assets_tests.support.browser import VIEWPORT, Pictures
from episodes_assets_tests.support.system import day

# The daemon looks at backfills every 30 seconds, which no setting changes, and this one takes three looks.
BACKFILL_MILLISECONDS = 150_000
RUN_MILLISECONDS = 90_000
LAST = 4


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_working_day(running: Running, person: Callable[[], Page], pictures: Pictures) -> None:
    """While the daemon waits with the backfill, the others do their part."""
    running.system.generate(day(1), day(LAST), episodes=60)
    operator = person()
    signs_in_wrongly_and_rightly(operator, running, pictures)
    run = materializes_a_day_and_launches_a_backfill_of_three(operator, running)
    finds_the_day_published(operator, running, run, pictures)
    looks_at_its_results(operator, running, pictures)
    with ExitStack() as until_seen:
        with running.sleeping_fleet():
            sees_all_and_changes_nothing(person(), running)
            signs_in_through_the_provider(person(), running)
            sees_jobs_wait(operator)
            no_run_has_variables_of_the_folder_where_up_was_typed(running)
            until_seen.enter_context(running.locked_outcomes())
        sees_workers_at_work(operator, pictures)
    sees_the_backfill_published(operator, running)
    logs_out_and_finds_everything_closed(operator, running)
    gets_the_same_from_nothing(running)


def signs_in_wrongly_and_rightly(page: Page, running: Running, pictures: Pictures) -> None:
    page.goto(f"{running.address}/runs?q=tag%3Aa")
    dashboard_pages.is_login(page)
    pictures.take(page, "login")
    dashboard_pages.sign_in(page, "operator", "wrong")
    expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
    dashboard_pages.sign_in(page, "operator", running.passwords["operator"])
    expect(dashboard_pages.who(page)).to_contain_text("operator (operator)")
    expect(page).to_have_url(re.compile(r"/runs\?q=tag%3Aa"))


def materializes_a_day_and_launches_a_backfill_of_three(page: Page, running: Running) -> str:
    dashboard_pages.materialize(page, running.address, str(day(1)), "Launch 1 run")
    run = page.get_by_text("Launched run").inner_text().split()[-1]
    dashboard_pages.materialize(page, running.address, f"[{day(2)}...{day(LAST)}]", "Launch backfill")
    expect(page.get_by_text("Created backfill")).to_be_visible()
    return run


def finds_the_day_published(page: Page, running: Running, run: str, pictures: Pictures) -> None:
    page.goto(f"{running.address}/runs")
    page.get_by_role("link", name=run).click()
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=RUN_MILLISECONDS)
    dashboard_pages.open_day(page, running.address, "published_results", day(1))
    dashboard_pages.is_materialized(page)
    rows = running.system.published()
    assert set(rows["day"]) == {day(1)}
    expect(page.get_by_role("row", name="rows published")).to_contain_text(f"{len(rows):,}")
    to_results = page.get_by_role("link", name=f"reach of {day(1)}")
    expect(to_results).to_have_attribute("href", f"/results/{day(1)}/reach")
    pictures.take(page, "materialization")
    page.set_viewport_size(WIDE)
    dashboard_pages.open_lineage(page, running.address)
    pictures.take(page, "asset-graph")
    page.set_viewport_size(VIEWPORT)


def looks_at_its_results(page: Page, running: Running, pictures: Pictures) -> None:
    dashboard_pages.who(page).get_by_role("link", name="Results").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Results of {day(1)}: reach")
    reach = running.system.published().query("algorithm_id == 0")
    expect(page.get_by_role("heading", level=2)).to_have_text(f"Rows: {len(reach):,}")
    expect(page.get_by_role("cell", name=re.compile("^Series .* Episode"))).not_to_have_count(0)
    pictures.take(page, "results")
    page.get_by_role("link", name="Explain episode").first.click()
    expect(page.get_by_role("heading", level=2)).to_contain_text("reach: published")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Dagster").click()
    expect(dashboard_pages.who(page)).to_be_visible()


def sees_all_and_changes_nothing(page: Page, running: Running) -> None:
    page.goto(f"{running.address}/asset-groups")
    dashboard_pages.sign_in(page, "viewer", running.passwords["viewer"])
    expect(dashboard_pages.who(page)).to_contain_text("viewer (viewer)")
    dashboard_pages.open_graph(page, running.address)
    expect(page.get_by_role("button", name="Materialize")).to_be_disabled()
    dashboard_pages.open_day(page, running.address, "published_results", day(1))
    dashboard_pages.is_materialized(page)
    expect(page.get_by_role("button", name="Materialize")).to_be_disabled()
    status, answer = dashboard_pages.try_a_mutation(page)
    assert status == 403
    assert "viewer" in answer


def signs_in_through_the_provider(page: Page, running: Running) -> None:
    page.goto(f"{running.address}/runs")
    dashboard_pages.sign_in_at_provider(page, "ann", running.provider.password)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_have_text("The sign-in was cancelled at the provider.")
    page.get_by_role("link", name="Sign in with Example").click()
    page.get_by_role("button", name="Authorize").click()
    expect(dashboard_pages.who(page)).to_contain_text("ann@example.com (operator)")
    expect(page).to_have_url(re.compile(f"^{re.escape(running.address)}/runs"))


def sees_jobs_wait(page: Page) -> None:
    dashboard_pages.who(page).get_by_role("link", name="Fleet").click()
    for number in range(2, LAST + 1):
        waiting = dashboard_pages.day_in_work(page, day(number))
        expect(waiting).to_contain_text(re.compile(r"waiting\s*[1-9]"), timeout=BACKFILL_MILLISECONDS)


def no_run_has_variables_of_the_folder_where_up_was_typed(running: Running) -> None:
    """A run inherits what the code location has in its environment by then."""
    runs = running.runs
    assert len(runs) > 0
    for run in runs:
        inherited = run.environ()
        assert "OF_OTHERS" not in inherited
        assert inherited["EPISODES_ADMIN_DSN"] == WITHHELD
        assert inherited["EPISODES_ENVIRONMENT"] == running.system.settings.environment


def sees_workers_at_work(page: Page, pictures: Pictures) -> None:
    """The page moves by itself."""
    expect(dashboard_pages.day_in_work(page, day(2))).to_contain_text(re.compile(r"running\s*[1-9]"))
    expect(dashboard_pages.figure(page, "Workers alive")).to_have_text("2")
    pictures.take(page, "fleet")


def sees_the_backfill_published(page: Page, running: Running) -> None:
    days = page.get_by_role("region", name="Days in work")
    expect(days).to_contain_text("No day is in work")
    dashboard_pages.open_day(page, running.address, "published_results", day(LAST))
    dashboard_pages.is_materialized(page)
    assert set(running.system.published()["day"]) == {day(number) for number in range(1, LAST + 1)}


def logs_out_and_finds_everything_closed(page: Page, running: Running) -> None:
    cookies = page.context.cookies()
    dashboard_pages.who(page).get_by_role("button", name="Log out").click()
    dashboard_pages.is_login(page)
    page.go_back()
    dashboard_pages.is_login(page)
    # Not even the cookie of before opens anything.
    page.context.add_cookies([{**cookie} for cookie in cookies])  # type: ignore[typeddict-item]
    for path in dashboard_pages.PAGES:
        page.goto(f"{running.address}{path}")
        dashboard_pages.is_login(page)
    status, _ = dashboard_pages.try_a_mutation(page)
    assert status == 401


def gets_the_same_from_nothing(running: Running) -> None:
    """Days that were worked through the browser have the rows that a range has which is worked at once."""
    before = running.system.published()
    running.system.forget_everything()
    anew = running.system.cli("backfill", str(day(1)), str(day(LAST)))
    assert anew.returncode == 0, anew.stderr
    assert running.system.published().equals(before)

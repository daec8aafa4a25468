"""What people do in the dashboard, by what they see on its pages."""

import datetime as dt
import re
import time
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, expect

# Everything whose path a login must protect, our own pages and Dagster's.
PAGES = (
    "/", "/runs", "/asset-groups", "/assets/published_results", "/automation", "/deployment", "/fleet",
    "/results", "/profiles",
)  # fmt: skip

GROUPS = ("source", "input", "planning", "fleet", "results", "consumers")
ASSETS = 6

_LAUNCH = """
async () => {
  const answer = await fetch("/graphql", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({query: 'mutation { reloadWorkspace { __typename } }'}),
  });
  return [answer.status, await answer.text()];
}
"""


def sign_in(page: Page, name: str, password: str) -> None:
    """Fill in the login page."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def sign_in_at_provider(page: Page, name: str, password: str) -> None:
    """Log in where the button on the login page leads, as somebody without a session there."""
    page.get_by_role("link", name="Sign in with Example").click()
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in at the provider").click()


def who(page: Page) -> Locator:
    """Where each page says who is signed in."""
    return page.get_by_label("Account", exact=True)  # Dagster has icons called account_circle


def is_login(page: Page) -> None:
    """Insist that the page is the login."""
    expect(page).to_have_url(re.compile(r"/login(\?|$)"))
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def open_graph(page: Page, address: str) -> None:
    """The graph of all assets, with its groups open."""
    groups = ",".join(f"global@global:{group}" for group in GROUPS)
    page.goto(f"{address}/asset-groups?{urlencode({'expanded': groups})}")
    expect(page.get_by_text("published_results").first).to_be_visible()


def open_lineage(page: Page, address: str) -> None:
    """The graph of our own assets, close enough for what each of them last did.

    With what others own before and behind them, Dagster shows no more than names.
    """
    query = urlencode({"view": "lineage", "lineageScope": "upstream", "lineageDepth": 3})
    page.goto(f"{address}/assets/published_results?{query}")
    expect(page.get_by_text("Latest event")).to_have_count(ASSETS)
    expect(page.get_by_text(re.compile("ago$"))).to_have_count(ASSETS)


def materialize(page: Page, address: str, days: str, button: str) -> None:
    """Launch what makes all assets of some days, with the mouse.

    Args:
        page: Of an operator.
        address: Of the dashboard.
        days: As the dialog wants them.
        button: What its button says for so many days.
    """
    open_graph(page, address)
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Show all partitions").click()
    field = dialog.get_by_placeholder("ex: 2018")
    field.fill(days)
    field.press("Enter")
    dialog.get_by_role("button", name=button).click()
    expect(dialog).to_be_hidden()


def open_day(page: Page, address: str, asset: str, day: dt.date) -> None:
    """What an asset's page says about a day."""
    week = f"[2018-03-01...{day}]"
    query = urlencode({"view": "partitions", "partition": str(day), "default_range": week})
    page.goto(f"{address}/assets/{asset}?{query}")
    expect(page.get_by_text("Latest materialization")).to_be_visible()


def is_materialized(page: Page, seconds: float = 30) -> None:
    """Look again and again until the page of a day says so."""
    deadline = time.monotonic() + seconds
    badge = page.get_by_text("Materialized", exact=True)
    while True:
        try:
            expect(badge).to_be_visible(timeout=5_000)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            page.reload()
        else:
            return


def day_in_work(page: Page, day: dt.date) -> Locator:
    """What the Fleet page says about a day."""
    days = page.get_by_role("region", name="Days in work")
    return days.get_by_role("listitem").filter(has=page.get_by_role("heading", name=str(day)))


def figure(page: Page, name: str) -> Locator:
    """One of the large figures of the Fleet page."""
    return page.locator("dl.figures > div").filter(has_text=name).locator("dd")


def try_a_mutation(page: Page) -> tuple[int, str]:
    """Send a mutation as the page's own scripts would; status and body of the answer."""
    status, body = page.evaluate(_LAUNCH)
    return int(status), str(body)

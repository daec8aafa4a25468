"""The strip on Dagster's pages and what stands at the edges of those pages: neither covers the other."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import FloatRect, Locator, Page, expect

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.auth.credentials import cookie_name
from episodes_assets.settings import PROJECT_FOLDER
from episodes_assets_tests.dashboard.served import THIS_USER, Dashboard, serve_dashboard, serving
from episodes_assets_tests.support.system import System

# A laptop, a large screen, a narrow window, a low one.
VIEWPORTS = ((1280, 800), (1920, 1080), (800, 700), (1280, 480))
LAUNCHPAD = "/locations/episodes_assets/jobs/waive_held_jobs/playground"
_COVERED = """
element => {
  const box = element.getBoundingClientRect();
  const inset = 2;
  const points = [
    [box.left + inset, box.top + inset], [box.right - inset, box.top + inset],
    [box.left + inset, box.bottom - inset], [box.right - inset, box.bottom - inset],
    [(box.left + box.right) / 2, (box.top + box.bottom) / 2],
  ];
  return points.filter(([x, y]) => {
    const there = document.elementFromPoint(x, y);
    return !(there && (element.contains(there) || there.contains(element)));
  }).length;
}
"""


@pytest.fixture
def served(system: System) -> Iterator[Dashboard]:
    """A dashboard with our code in it."""
    with serve_dashboard(system, PROJECT_FOLDER / "workspace.yaml") as dashboard:
        yield dashboard


def is_whole(page: Page, what: Locator) -> FloatRect:
    """Insist that something is inside of the window and that nothing covers it; its place."""
    expect(what).to_be_visible()
    box, window = what.bounding_box(), page.viewport_size
    assert box is not None
    assert window is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= window["width"], (what, box, window)
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= window["height"], (what, box, window)
    assert what.evaluate(_COVERED) == 0, (what, box, window)
    return box


@pytest.mark.slow
def test_the_strip_and_the_launchpads_buttons_cover_each_other_nowhere(
    served: Dashboard, person: Callable[[], Page]
) -> None:
    page = person()
    with serving(served.app, served.configuration) as port:
        address = f"http://127.0.0.1:{port}"
        session = served.session(Role.OPERATOR, client=THIS_USER)
        cookie = {"name": cookie_name(is_secure=False), "value": session, "url": address}
        page.context.add_cookies([cookie])  # type: ignore[list-item]
        page.goto(f"{address}{LAUNCHPAD}")
        strip = page.locator("#episodes-strip")
        launch = page.get_by_role("button", name="Launch run")
        for width, height in VIEWPORTS:
            page.set_viewport_size({"width": width, "height": height})
            bar = is_whole(page, strip)
            button = is_whole(page, launch)
            assert button["y"] + button["height"] <= bar["y"], (width, height)
            for name in ("Fleet", "Results", "Explain", "Profiles"):
                is_whole(page, strip.get_by_role("link", name=name, exact=True))
            is_whole(page, strip.get_by_role("button", name="Log out"))
        assert strip.get_by_role("link", name="Profiles", exact=True).get_attribute("href") == "/profiles"

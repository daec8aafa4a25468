"""A browser, people with pages in it, and pictures of those for the docs: fixtures."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

VIEWPORT = ViewportSize(width=1280, height=800)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MILLISECONDS = 30_000


class Pictures:
    """Keeps pictures of pages, if a folder for them was given."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def are_kept(self) -> bool:
        """Whether a folder for them was given."""
        return self._folder is not None

    def take(self, page: Page, name: str) -> None:
        """Keep what a page shows, without anything that moves."""
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=self._folder / f"{name}.png", animations="disabled", caret="hide")


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser; not for the session, because Playwright's event loop would be in other tests' way."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("there is no browser; install Debian's package chromium")
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def person(browser: Browser) -> Iterator[Callable[[], Page]]:
    """A page in a browser that nobody has used before, for as many people as are asked for."""
    with ExitStack() as stack:

        def arrives() -> Page:
            context = browser.new_context(
                viewport=VIEWPORT, locale="en-GB", timezone_id="UTC", reduced_motion="reduce"
            )
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MILLISECONDS)
            return page

        yield arrives


@pytest.fixture
def pictures(request: pytest.FixtureRequest) -> Pictures:
    folder = request.config.getoption("--pictures")
    return Pictures(Path(folder) if folder else None)

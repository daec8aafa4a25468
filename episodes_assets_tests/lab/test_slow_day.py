"""A step that is slow in production only, found in a lab: because of the state, and because of a list.

The planner of the old kind is this release with the patch of docs/lab.md, in a folder that comes before the
installed package in PYTHONPATH. It looks for each row's episode in a list of all tracked ones. What is
compared is the work that it did, which it notes, and not how long that took.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

import episodes_assets
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.days import ONE_DAY
from episodes_assets.lab import labs
from episodes_assets.lab.labs import Lab
from episodes_assets.postgres.databases import Database
from episodes_assets.settings import PROJECT_FOLDER, load_settings
from episodes_assets_tests.lab.conftest import let_nobody_make_temporary_tables
from episodes_assets_tests.lab.labs_of_tests import PATIENCE_SECONDS, published_rows, succeeds, web_ui
from episodes_assets_tests.support.browser import Pictures
from episodes_assets_tests.support.dashboard_pages import open_day, sign_in
from episodes_assets_tests.support.system import System, day, failure

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(900)]

DAYS = 40
SLOW_DAY = day(DAYS)
TRACKED_BEFORE = 100_000
PACKAGE = Path(episodes_assets.__file__).parent
PATCH = PROJECT_FOLDER / "docs" / "planner-with-a-list.patch"
SEARCHED, NOTES = "        is_tracked.append(epid in tracked_before.listed)\n", "ROWS_AND_LISTED"
NOTING = f"""\
    import os
    with open(os.environ["{NOTES}"], "a") as notes:
        notes.write(f"{{len(is_tracked)}} {{len(tracked_before.listed)}}\\n")
"""


class OldRelease:
    """This release with a planner of the old kind.

    Args:
        folder: Where it is to be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PACKAGE, folder / PACKAGE.name)
        shutil.copy(PROJECT_FOLDER / "dagster.yaml", folder)
        subprocess.run(["git", "apply", str(PATCH)], cwd=folder, check=True)
        planner = folder / PACKAGE.name / "planning" / "jobs.py"
        text = planner.read_text()
        assert text.count(SEARCHED) == 1
        planner.write_text(text.replace(SEARCHED, SEARCHED + NOTING))
        number = text[: text.index(SEARCHED)].count("\n") + 1
        self.searching_line = f"{PACKAGE.name}/planning/jobs.py:{number}"
        self._notes = folder / "notes"
        self.said = ""  # by the last command

    def run(self, *arguments: str, home: Path | None = None) -> list[tuple[int, int]]:
        """Run a command that must succeed; how many rows were looked for in how long a list, each time."""
        self._notes.write_text("")
        environment = {**os.environ, "PYTHONPATH": str(self.folder), NOTES: str(self._notes)}
        if home is not None:
            environment["EPISODES_HOME"] = str(home)
        done = subprocess.run(
            episodes_argv(*arguments),
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.said = done.stdout
        return [
            (int(rows), int(listed)) for rows, listed in map(str.split, self._notes.read_text().splitlines())
        ]


@pytest.fixture
def old_release(tmp_path: Path) -> OldRelease:
    return OldRelease(tmp_path / "old")


@pytest.fixture
def production(system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> System:
    """An environment stamped `production`, with all days but the last, and years of tracked episodes."""
    for database in Database:
        system.query(database.value, "UPDATE environment_stamp SET environment = 'production'")
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "production")
    let_nobody_make_temporary_tables(system)
    tracked, epids = tmp_path / "tracked.csv", range(10_000_000, 10_000_000 + TRACKED_BEFORE)
    pd.DataFrame({"epid": epids, "tracked_on": None}).to_csv(tracked, index=False)
    imported = system.cli("state", "import", str(tracked), "--as-of", str(day(1) - ONE_DAY))
    assert imported.returncode == 0, imported.stderr
    system.generate(day(1), SLOW_DAY, episodes=1_000)
    with system.workers(2):
        result = system.materialize(day(1), SLOW_DAY - ONE_DAY)
    assert result.success, failure(result)
    return system


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The home of the labs, which are deleted afterwards."""
    home = tmp_path / "labs"
    yield home
    for lab in labs.all_labs(load_settings(home=home)):
        succeeds("lab", "drop", lab.name, home=home)


def test_a_slow_day_of_production_is_slow_in_a_lab_with_its_state_alone(
    production: System,
    old_release: OldRelease,
    home: Path,
    tmp_path: Path,
    pictures: Pictures,
    request: pytest.FixtureRequest,
) -> None:
    # The night in production.
    slow = old_release.run("run", str(SLOW_DAY), "--workers", "2")
    assert sum(rows for rows, _ in slow) > 1_000
    assert all(listed > TRACKED_BEFORE for _, listed in slow)

    # The day is taken once, and loaded with and without the state; both are what was published.
    lake = str(production.home / "lake")
    bundle = str(tmp_path / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPISODES_LAKE_URL", lake)
        succeeds("lab", "take", str(SLOW_DAY), "--to", bundle)
    succeeds("lab", "load", bundle, "--name", "with", home=home)
    succeeds("lab", "load", bundle, "--name", "without", "--without-state", home=home)
    assert "is what 'production' has published.\n" in succeeds("lab", "verify", "with", home=home)

    # The step is slow only with the state: the list has all that was tracked in years, or nothing.
    assert old_release.run("lab", "replay", "with", "--profile", home=home) == slow
    # And the first line of the profile is the one that searches the list.
    assert hottest_line(old_release.said, "episode_jobs") == old_release.searching_line
    if pictures.are_kept:
        with web_ui("with", home, tmp_path / "up.log") as (address, password):
            shows_the_list(request.getfixturevalue("person")(), address, password, old_release, pictures)
    quick = old_release.run("lab", "replay", "without", home=home)
    assert [rows for rows, _ in quick] == [rows for rows, _ in slow]
    assert all(listed == 0 for _, listed in quick)

    # With the set nobody searches a list, and what is published is the same.
    before = published_rows(found(home, "with"), SLOW_DAY)
    said = succeeds("lab", "replay", "with", "--profile", home=home)
    assert hottest_line(said, "episode_jobs") != old_release.searching_line
    pd.testing.assert_frame_equal(published_rows(found(home, "with"), SLOW_DAY), before)
    assert "is what 'production' has published.\n" in succeeds("lab", "verify", "with", home=home)


def shows_the_list(
    page: Page, address: str, password: str, old_release: OldRelease, pictures: Pictures
) -> None:
    """In the lab's web UI the searched list is the widest box of the flame graph and the first hot line."""
    page.goto(f"{address}/profiles")
    sign_in(page, "operator", password)
    page.get_by_role("row").filter(has_text="episode_jobs").get_by_role("link").first.click()
    hot = page.get_by_role("region", name="Hot lines")
    expect(hot.get_by_role("row").nth(1)).to_contain_text(old_release.searching_line)
    page.get_by_role("heading", name="Flame graph").evaluate("heading => heading.scrollIntoView()")
    pictures.take(page, "lab-flame-graph")
    open_day(page, address, "episode_jobs", SLOW_DAY)
    page.get_by_text(old_release.searching_line).first.scroll_into_view_if_needed()
    pictures.take(page, "lab-materialization")


def hottest_line(said: str, asset: str) -> str:
    """The first line of a step's profile, as a command has shown it."""
    shown = said.partition(f"step {asset} of ")[2].splitlines()
    return next(line.split()[2] for line in shown if ".py:" in line)


def found(home: Path, name: str) -> Lab:
    return labs.find_lab(load_settings(home=home), name)

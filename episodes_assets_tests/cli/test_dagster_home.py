"""Dagster's instance in the home: this release's dagster.yaml, whichever release was there before."""

from pathlib import Path

import pytest

from episodes_assets.cli.context import find_instance_file, prepare_dagster_home
from episodes_assets.settings import PROJECT_FOLDER, load_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nothing was run yet."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("EPISODES_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "dagster"


def test_a_checkout_has_the_file_at_its_top() -> None:
    assert find_instance_file() == PROJECT_FOLDER / "dagster.yaml"


def test_the_home_of_a_release_that_was_installed_elsewhere_follows_this_one(
    home: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older.yaml"
    older.write_text("telemetry: {enabled: false}\n")
    home.mkdir(parents=True)
    (home / "dagster.yaml").symlink_to(older)
    prepare_dagster_home(load_settings())
    assert (home / "dagster.yaml").resolve() == find_instance_file().resolve()


def test_a_file_that_somebody_has_put_there_is_respected(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert prepare_dagster_home(load_settings()) == home
    assert not (home / "dagster.yaml").is_symlink()

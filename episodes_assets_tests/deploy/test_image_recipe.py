"""The image's recipe: what reaches the build, and that nothing secret does."""

import re

from episodes_assets.settings import PROJECT_FOLDER
from episodes_assets_tests.deploy import compose

RECIPE = (PROJECT_FOLDER / "Containerfile").read_text(encoding="utf-8")


def test_only_what_is_needed_reaches_the_build() -> None:
    ignored = (PROJECT_FOLDER / ".containerignore").read_text(encoding="utf-8").splitlines()
    # docker build looks for a file of another name.
    docker = (PROJECT_FOLDER / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert docker == ignored
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line.removeprefix("!") for line in rules if line.startswith("!")}
    copied = {
        name.rstrip("/")
        for line in RECIPE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert copied == allowed
    assert not any((PROJECT_FOLDER / name).is_symlink() for name in copied)


def test_no_layer_is_given_a_secret() -> None:
    assert "EPISODES_" not in RECIPE.replace("EPISODES_HOME", "")
    assert "USER 10001:10001" in RECIPE


def test_nothing_is_taken_from_the_current_folder() -> None:
    """Neither modules nor, by Dagster, the variables of a `.env`: nobody writes to it."""
    assert "PYTHONSAFEPATH=1 " in RECIPE
    assert re.findall(r"^WORKDIR (\S+)", RECIPE, re.MULTILINE)[-1] == "/opt/episodes/dagster"
    assert "DAGSTER_HOME=/opt/episodes/dagster " in RECIPE


def test_a_volume_is_the_users_own() -> None:
    """Docker gives a new one the owner of the image's folder that it is mounted over, or else root."""
    own = set(re.findall(r"install -d -o 10001 -g 10001 -m 0700 (\S+)", RECIPE))
    file = compose.read(compose.example())
    for name, target in compose.volume_targets(file).items():
        options = ((file["volumes"][name] or {}).get("driver_opts") or {}).get("o", "")
        assert target in own or "uid=10001" in options, name

"""The image's recipe: what reaches the build, and that nothing secret does."""

from episodes_assets.settings import PROJECT_FOLDER

RECIPE = (PROJECT_FOLDER / "Containerfile").read_text(encoding="utf-8")


def test_only_what_is_needed_reaches_the_build() -> None:
    ignored = (PROJECT_FOLDER / ".containerignore").read_text(encoding="utf-8").splitlines()
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

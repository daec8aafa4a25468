"""Before a commit runs what `make lint` runs."""

import subprocess

import pytest
import yaml

from episodes_assets.settings import PROJECT_FOLDER

pytestmark = pytest.mark.process


def test_the_hooks_are_the_commands_of_make_lint() -> None:
    installed = [f"--old-file=.venv/{each}" for each in (".installed", ".bench-installed")]
    listed = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "VENV=.venv", *installed, "lint"],
        cwd=PROJECT_FOLDER,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    configuration = yaml.safe_load((PROJECT_FOLDER / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (local,) = configuration["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == listed.splitlines()

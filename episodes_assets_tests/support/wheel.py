"""The product's wheel, and environments into which it is installed."""

import subprocess
import sys
from pathlib import Path

from episodes_assets.settings import PROJECT_FOLDER

_PIP = ("-P", "-m", "pip", "--quiet", "--disable-pip-version-check")


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the checkout into a folder."""
    arguments = ["wheel", "--no-deps", "--wheel-dir", str(folder), str(PROJECT_FOLDER)]
    subprocess.run([sys.executable, *_PIP, *arguments], check=True, timeout=300)
    (wheel,) = folder.glob("episodes_assets-*.whl")
    return wheel


def make_environment(folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with a wheel and all that it depends on, in the versions that are tested."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    arguments = ["install", "--constraint", str(PROJECT_FOLDER / "constraints.txt"), str(wheel)]
    subprocess.run([str(folder / "bin" / "python"), *_PIP, *arguments], check=True, timeout=900)
    return folder

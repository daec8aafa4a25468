"""Programs installed beside this Python."""

import sys
from pathlib import Path

from episodes_assets.errors import ProcessFailed


def program(name: str) -> list[str]:
    """The command line of a program of this environment, whether or not it is on the PATH.

    Python is given its script: the script's own first line may hand the environment's path to a shell, which
    misreads a quote or a dollar in it.

    Raises:
        ProcessFailed: If it is not installed.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise ProcessFailed(f"{name} is not installed beside {sys.executable}", "run `make run`")
    return [sys.executable, str(path)]

"""Modules of the benchmarks run as processes of their own."""

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def in_a_process(module: str, *arguments: str) -> dict[str, Any]:
    """What a module prints last, as JSON."""
    output = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def run_assets(day: dt.date, assets: Sequence[str]) -> dict[str, Any]:
    """Run assets of a day; the seconds of all of them beside those of each."""
    found = in_a_process("benchmarks.assets_process", str(day), *assets)
    return {**found, "seconds": sum(found[asset] for asset in assets)}

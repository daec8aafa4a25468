"""Modules of the benchmarks run as processes of their own."""

import datetime as dt
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from episodes_assets.cli.supervisor import episodes_argv


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


def run_explain(day: dt.date, epid: int, algorithm: str) -> dict[str, Any]:
    """Explain a row of the results, which must be there, from a process of its own.

    Returns:
        `processor_seconds` of that process.
    """
    before = _processor_seconds_of_children()
    asked = ("explain", str(day), str(epid), algorithm)
    said = subprocess.run(episodes_argv(*asked), check=True, capture_output=True, text=True).stdout
    assert f"{day}, episode {epid}, {algorithm}: published" in said, said
    return {"processor_seconds": _processor_seconds_of_children() - before}


def _processor_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

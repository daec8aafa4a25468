"""Modules of the benchmarks run as processes of their own, and workers beside them.

At production size each is started as it is in production. At small sizes, where nobody reads the figures, it
is forked from a process that has imported everything, since importing would take most of the time.
"""

import datetime as dt
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets_tests.support import commands
from episodes_assets_tests.support.fork_server import FORK_SERVER

_READY_SECONDS = 60
_POLL_SECONDS = 0.01
_are_forked = False


def fork_processes() -> None:
    """From now on fork what would be started; the process it is forked from begins to import at once."""
    global _are_forked
    _are_forked = True
    forkserver.ensure_running()


def are_forked() -> bool:
    """Whether the sizes are small."""
    return _are_forked


def in_a_process(module: str, *arguments: str) -> dict[str, Any]:
    """What a module prints last, as JSON."""
    output = (_forked if _are_forked else _started)(module, arguments)
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


def _started(module: str, arguments: Sequence[str]) -> str:
    argv = [sys.executable, "-m", module, *arguments]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout


def _forked(module: str, arguments: Sequence[str]) -> str:
    with tempfile.NamedTemporaryFile(prefix="benchmark-") as printed:
        details = (module, tuple(arguments), dict(os.environ), printed.name)
        process = FORK_SERVER.Process(target=_become, args=details, name=module)
        process.start()
        process.join()
        if process.exitcode:
            raise subprocess.CalledProcessError(process.exitcode, [module, *arguments])
        return Path(printed.name).read_text(encoding="utf-8")


def _become(module: str, arguments: Sequence[str], environment: Mapping[str, str], printed: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    with Path(printed).open("w", encoding="utf-8") as sys.stdout:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextmanager
def forked_workers(environment: Mapping[str, str], count: int) -> Iterator[None]:
    """Workers that are ready when the block begins."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        logs = Path(folder)
        with commands.running_workers(environment, count, logs):
            deadline = time.monotonic() + _READY_SECONDS
            while sum("is ready" in log.read_text() for log in logs.iterdir()) < count:
                if time.monotonic() > deadline:
                    raise TimeoutError("a worker did not get ready")
                time.sleep(_POLL_SECONDS)
            yield

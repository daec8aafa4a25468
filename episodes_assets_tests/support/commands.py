"""`episodes` commands of tests, forked from one process that has imported the package already.

Starting Python and importing Dagster, pandas and the lake takes most of the time of most commands. A command
forked from a process that has done so (`multiprocessing`'s fork server) is a process of its own all the same,
with its own environment, standard streams, exit code and signals. What depends on how Python starts (its
flags, the locale, a terminal, closed streams, modules in the current folder) is tested with `episodes_argv`.
"""

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from episodes_assets import __main__ as entry_point
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets_tests.support.fork_server import FORK_SERVER

# What the package reads when a command runs; anything else may matter when Python starts.
_OURS = ("EPISODES_", "DAGSTER_", "PYTEST_")


def _of_others(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_OURS)}


_STOP_SECONDS = 30.0
_AT_THE_START = _of_others(os.environ)


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], *, timeout: float, umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        arguments: After `episodes`.
        environment: All of it.
        timeout: In seconds.
        umask: -1 for this process's own.

    Raises:
        subprocess.TimeoutExpired: If it was killed for the time.
    """
    if _of_others(environment) != _AT_THE_START:
        return subprocess.run(
            episodes_argv(*arguments),
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            umask=umask,
        )
    with tempfile.TemporaryDirectory(prefix="episodes-command-") as folder:
        streams = Streams(f"{folder}/stdout", f"{folder}/stderr")
        process = _start(arguments, environment, streams, umask)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["episodes", *arguments], timeout)
        stdout, stderr = (Path(path).read_text() for path in streams)
        return subprocess.CompletedProcess(["episodes", *arguments], process.exitcode, stdout, stderr)


@contextmanager
def running_workers(environment: Mapping[str, str], count: int, logs: Path) -> Iterator[None]:
    """Workers while the block lasts; they stop as well when the test's process is killed.

    Args:
        environment: All of it.
        count: How many.
        logs: A folder for what they print.
    """
    logs.mkdir(parents=True, exist_ok=True)
    paths = [f"{logs}/worker-{number}.log" for number in range(1, count + 1)]
    processes = [_start(["worker"], environment, Streams(path, path)) for path in paths]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(_STOP_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()


class Streams(NamedTuple):
    """The files that a command's standard streams are appended to."""

    stdout: str
    stderr: str


def _start(
    arguments: Sequence[str], environment: Mapping[str, str], streams: Streams, umask: int = -1
) -> BaseProcess:
    details = (list(arguments), dict(environment), os.getcwd(), streams, umask)  # noqa: PTH109  a text
    process = FORK_SERVER.Process(target=_become, args=details, name="episodes")
    process.start()
    return process


def _become(
    arguments: list[str], environment: dict[str, str], folder: str, streams: Streams, umask: int
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if umask >= 0:
        os.umask(umask)
    _lead(0, os.devnull, os.O_RDONLY)
    _lead(1, streams.stdout, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _lead(2, streams.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    # The fork server is its parent, and ends with the test's process.
    bound = ["--stop-with-parent", str(os.getppid())] if arguments == ["worker"] else []
    sys.argv = ["episodes", *arguments, *bound]
    try:
        entry_point.main()
    finally:
        atexit._run_exitfuncs()


def _lead(number: int, path: str, flags: int) -> None:
    descriptor = os.open(path, flags, 0o600)
    os.dup2(descriptor, number)
    os.close(descriptor)

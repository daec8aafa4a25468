"""Child processes of a command: started, restarted with backoff, stopped with the command.

A child is started again with the same arguments and environment, so on the same socket and port. It takes no
modules from the current folder, and it does not outlive the command, even one that SIGKILL ends: workers
watch their parent, the kernel ends other programs (`die_with_parent`). The programs are those installed
beside this Python. Which processes a command starts is said in its own module. Here are also the command
line, the environment and the log of a worker, workers that last as long as a block, and programs that are run
to their end.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import typer

from episodes_assets.cli import die_with_parent
from episodes_assets.cli.console import err, escaped
from episodes_assets.errors import ProcessFailed
from episodes_assets.failures import describe_exit
from episodes_assets.postgres.databases import FLEET
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.private_files import LogFile, make_folder
from episodes_assets.settings import Settings, with_settings

STOP_SECONDS = 30.0
LIVED_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
_LONGEST_ERROR = 4_096


class LineSink(Protocol):
    """Takes the output of processes, line by line, from several threads."""

    def __call__(self, name: str, line: str) -> None:
        """A line of the process called `name`."""


@dataclass
class Child:
    """A running child process."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    process: subprocess.Popen[str]
    started: float = field(default_factory=time.monotonic)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None


class ProcessGroup:
    """Processes that live and end together.

    Each gets a session of its own: Ctrl-C reaches only the command, which then stops them in order,
    and whatever they started themselves is found by its process group. Each takes signals as by default,
    whatever this process ignores, and no Python looks for modules in the current folder.

    Args:
        sink: Takes their output.
        die_with_us: Whether they get a SIGTERM when this process is killed; then it has to start them in its
            main thread.
    """

    def __init__(self, sink: LineSink, *, die_with_us: bool = False) -> None:
        self._sink = sink
        self._launcher = die_with_parent.argv(os.getpid()) if die_with_us else die_with_parent.argv()
        self.children: list[Child] = []

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start a process whose output goes to the sink."""
        process = subprocess.Popen(
            [*self._launcher, *argv],
            env={**with_settings(os.environ, env), "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        child = Child(name, argv, env, process)
        self.children.append(child)
        assert process.stdout is not None  # noqa: S101  PIPE
        threading.Thread(target=self._drain, args=(name, process.stdout), daemon=True).start()
        return child

    def forget_ended(self) -> list[Child]:
        """The processes that have ended since the last call."""
        ended = [child for child in self.children if not child.is_running]
        self.children = [child for child in self.children if child.is_running]
        for child in ended:
            _kill_group(child)
        return ended

    def stop(self) -> None:
        """Ask all processes to end, the last started first, and make sure that they have."""
        for child in reversed(self.children):
            if child.is_running:
                with contextlib.suppress(ProcessLookupError):
                    child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in reversed(self.children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(deadline - time.monotonic(), 0.1))
            _kill_group(child)
            child.process.wait()
        self.children = []

    def _drain(self, name: str, output: IO[str]) -> None:
        with output:
            for line in output:
                self._sink(name, line.rstrip("\n"))


class Backoff:
    """How long to wait before each restart of something: exponentially longer while it ends soon again."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE_SECONDS

    def pause(self, lived: float) -> float:
        """The seconds until the next restart.

        Args:
            lived: For how many seconds it ran.
        """
        pause = FIRST_PAUSE_SECONDS if lived > LIVED_SECONDS else self._next
        self._next = min(pause * 2, LONGEST_PAUSE_SECONDS)
        return pause


class Restarts:
    """Restarts processes that have ended, with exponential backoff for those that end soon again.

    Args:
        group: The group in which they are started.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._backoffs: defaultdict[str, Backoff] = defaultdict(Backoff)
        self._due: list[tuple[float, Child]] = []

    def plan(self, child: Child) -> float:
        """Schedule the restart of a process that has ended; returns the seconds until then."""
        now = time.monotonic()
        pause = self._backoffs[child.name].pause(now - child.started)
        self._due.append((now + pause, child))
        return pause

    def start_due(self) -> list[str]:
        """Start those whose pause is over; returns their names."""
        now = time.monotonic()
        due = [child for at, child in self._due if at <= now]
        self._due = [(at, child) for at, child in self._due if at > now]
        for child in due:
            self._group.start(child.name, child.argv, child.env)
        return [child.name for child in due]


def _kill_group(child: Child) -> None:
    """End what a process left behind; its group has its process id."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)


def episodes_argv(*arguments: str) -> list[str]:
    """The command line of an `episodes` subcommand in this environment."""
    return [sys.executable, "-P", "-m", "episodes_assets", *arguments]


def worker_argv() -> list[str]:
    """The command line of a worker that stops when this process is gone."""
    return episodes_argv("worker", "--stop-with-parent", str(os.getpid()))


def worker_environment(settings: Settings, dsns: Dsns) -> dict[str, str]:
    """The environment of a worker: its own two DSNs and no other."""
    return {
        **dsns.environment(FLEET),
        "EPISODES_HOME": str(settings.home.resolve()),
        "EPISODES_ENVIRONMENT": settings.environment,
    }


@contextmanager
def log_files(folder: Path, names: Sequence[str]) -> Iterator[LineSink]:
    """Write the output of processes to logs in a folder, one for each, during the block.

    Yields:
        Takes their lines.
    """
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(contextlib.closing(LogFile(folder / f"{name}.log"))) for name in names
        }

        def write(name: str, line: str) -> None:
            files[name].write(escaped(line))

        yield write


@contextmanager
def temporary_workers(settings: Settings, dsns: Dsns, count: int) -> Iterator[None]:
    """Run worker processes of this command during the block; their logs go to the home.

    Raises:
        ProcessFailed: If all workers have ended by the end of the block.
    """
    if count == 0:
        yield
        return
    folder = make_folder(settings.home / "logs")
    names = [f"worker-{number}" for number in range(1, count + 1)]
    with log_files(folder, names) as write, contextlib.ExitStack() as stack:
        group = ProcessGroup(write)
        stack.callback(group.stop)
        for name in names:
            group.start(name, worker_argv(), worker_environment(settings, dsns))
        ended = threading.Event()
        restarts = Restarts(group)
        keeper = threading.Thread(target=_keep_running, args=(group, ended, restarts, folder), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
        group.forget_ended()
        if not group.children:
            log = folder / "worker-1.log"
            raise ProcessFailed(f"all workers have ended{_last_error(log)}", f"read {log}")


def _keep_running(group: ProcessGroup, ended: threading.Event, restarts: Restarts, logs: Path) -> None:
    """Restart workers that have ended, with a message: a command that waits for them may show no other."""
    while not ended.wait(1):
        for child in group.forget_ended():
            pause = restarts.plan(child)
            log = logs / f"{child.name}.log"
            err.print(
                f"{child.name} {describe_exit(child.process.returncode)}{_last_error(log)}; "
                f"starting it again in {pause:g} s. What it said: {log}",
                soft_wrap=True,
            )
        restarts.start_due()


def _last_error(log: Path) -> str:
    """The error that a process ended with, in brackets, as the last line of its log has it."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(log.stat().st_size - _LONGEST_ERROR, 0))
        *_, last = file.read().decode(errors="replace").splitlines() or [""]
        if last.startswith("error: "):
            return f" ({last.removeprefix('error: ')})"
    return ""


def program(name: str) -> list[str]:
    """The command line of a program of this environment, whether or not it is on the PATH.

    Python is given its script: the script's own first line may hand the environment's path to a shell, which
    misreads a quote or a dollar in it.

    Raises:
        ProcessFailed: If it is not installed.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise ProcessFailed(
            f"{name} is not installed beside {sys.executable}",
            "install the package again, with all that it depends on",
        )
    return [sys.executable, str(path)]


def run_to_end(
    argv: Sequence[str], environment: Mapping[str, str], *, is_stopped_by_hand: bool = False
) -> None:
    """Run a process with just this environment and this process's streams, until it ends.

    It has a session of its own, so that Ctrl-C reaches this process alone, which then terminates it.

    Args:
        argv: Its command line.
        environment: Its environment.
        is_stopped_by_hand: Whether it runs until it is terminated, which is then no failure.

    Raises:
        typer.Exit: With its exit code, if it failed; it has printed why.
        KeyboardInterrupt: If it was interrupted.
    """
    command = [*die_with_parent.argv(os.getpid()), *argv]
    with subprocess.Popen(command, env=dict(environment), start_new_session=True) as process:
        try:
            _wait_for(process)
        except BaseException:
            if not is_stopped_by_hand or process.wait() != 0:
                raise
    _require_success(process.returncode)


@contextmanager
def started_ahead(argv: Sequence[str], environment: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Start a process as `run_to_end` does, which imports what it needs and waits for a line to go on.

    Args:
        argv: Its command line. It reads a line of its standard input, and ends if there is none.
        environment: Its environment.

    Yields:
        Lets it go on, until it ends.

    Raises:
        typer.Exit: With its exit code, if it failed; it has printed why.
        KeyboardInterrupt: If it was interrupted.
    """
    command = [*die_with_parent.argv(os.getpid()), *argv]
    with subprocess.Popen(
        command, env=dict(environment), start_new_session=True, stdin=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None  # noqa: S101  it is a pipe
        line = process.stdin

        def go_on() -> None:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and has printed why
                line.write(b"\n")
            _wait_for(process)

        try:
            yield go_on
        finally:
            line.close()
    _require_success(process.returncode)


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process ends; it is terminated when this one is interrupted meanwhile."""
    try:
        process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        raise


def _require_success(code: int) -> None:
    if code:
        raise typer.Exit(code if code > 0 else 128 - code)

"""Processes of their own for Dagster runs and sensor ticks, forked from one that has imported everything."""

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, Generic, ParamSpec, TypeVar

from episodes_assets_tests.support.faults import Instant, Instants, watch
from episodes_assets_tests.support.fork_server import FORK_SERVER

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

PATIENCE_SECONDS = 120


class Broke(AssertionError):
    """The function raised in its process; the message is its traceback."""


@dataclass
class OwnProcess(Generic[R]):
    """A function that runs in a process of its own."""

    process: BaseProcess
    messages: Connection

    def result(self) -> R:
        """What the function returned.

        Raises:
            Broke: If it raised.
            AssertionError: If the process was killed, or does not end.
        """
        assert self.messages.poll(PATIENCE_SECONDS), "the process does not end"
        try:
            is_well, value = self.messages.recv()
        except EOFError:
            self.process.join(PATIENCE_SECONDS)
            raise AssertionError(f"the process ended with {self.process.exitcode}") from None
        self.process.join(PATIENCE_SECONDS)
        if not is_well:
            raise Broke(value)
        return value  # type: ignore[no-any-return]

    def was_killed(self) -> bool:
        """Wait for its end: whether it was by SIGKILL, and not because the function had returned."""
        self.process.join(PATIENCE_SECONDS)
        return self.process.exitcode == -signal.SIGKILL


@contextmanager
def own_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Iterator[OwnProcess[R]]:
    """Start a function in a process with this one's environment; it is gone when the block ends.

    The function must be one that can be imported, and its arguments must pickle.
    """
    ours, theirs = FORK_SERVER.Pipe(duplex=False)
    process = FORK_SERVER.Process(target=_enter, args=(dict(os.environ), theirs, function, args, kwargs))
    process.start()
    theirs.close()
    try:
        yield OwnProcess(process, ours)
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        ours.close()


def _enter(
    environment: Mapping[str, str],
    messages: Connection,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    try:
        message = (True, function(*args, **kwargs))
    except BaseException:  # noqa: BLE001  whatever it is, the test is to see it
        message = (False, traceback.format_exc())
    messages.send(message)
    messages.close()


def counted(
    folder: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> tuple[list[Instant], R]:
    """Run a function and return the instants it passed as well."""
    instants = Instants(None, lambda: None)
    watch(instants, folder)
    result = function(*args, **kwargs)
    return instants.passed, result


def killed_at(
    instant: Instant, folder: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run a function and let its process kill itself at an instant."""
    watch(Instants(instant, lambda: os.kill(os.getpid(), signal.SIGKILL)), folder)
    return function(*args, **kwargs)


@dataclass(frozen=True)
class Halt:
    """Where a process waits until it is told to go on."""

    reached: Event
    go_on: Event

    @classmethod
    def new(cls) -> "Halt":
        return cls(FORK_SERVER.Event(), FORK_SERVER.Event())

    def wait(self) -> None:
        """Called in the process."""
        self.reached.set()
        assert self.go_on.wait(PATIENCE_SECONDS)


def halted_at(
    instant: Instant, halt: Halt, folder: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run a function and let it wait at an instant for what the test does meanwhile."""
    watch(Instants(instant, halt.wait), folder)
    return function(*args, **kwargs)

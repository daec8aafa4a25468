"""The process that computes micro-batches for a worker, replaced when it dies or takes too long."""

import asyncio
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import ParamSpec, TypeVar

from episodes_assets.failures import describe_exit

P = ParamSpec("P")
R = TypeVar("R")

_END_SECONDS = 2.0


class ComputationDied(Exception):
    """The process died while it computed: killed, out of memory, or crashed."""


class ComputationTooLong(Exception):
    """The computation ran into the time limit and was killed."""


class ComputeProcess:
    """One child process, started at once and again when needed.

    Args:
        memory_megabytes: What it may allocate. Beyond that an allocation fails in the code that asks for
            it, with a traceback, long before the machine runs short.

    Attributes:
        incarnation: How often the process was replaced; another one has imported nothing yet.
    """

    def __init__(self, memory_megabytes: int) -> None:
        self.incarnation = 0
        self._memory_megabytes = memory_megabytes
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=1,
            # A forked child would share the worker's connections.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(self._memory_megabytes,),
        )

    async def run(
        self, timeout_seconds: float | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a function in the process.

        Args:
            timeout_seconds: How long it may take; None for any time.
            function: Can be pickled.
            *args: Its arguments.
            **kwargs: Must be empty.

        Raises:
            ComputationDied: If the process died.
            ComputationTooLong: If it took longer than the limit.
            Exception: Whatever the function raises.
        """
        if kwargs:
            raise TypeError("positional arguments only")
        loop = asyncio.get_running_loop()
        child: BaseProcess | None = None
        try:
            pid = await loop.run_in_executor(self._executor, os.getpid)
            child = next((each for each in multiprocessing.active_children() if each.pid == pid), None)
            future = loop.run_in_executor(self._executor, function, *args)
            done, _ = await asyncio.wait({future}, timeout=timeout_seconds)
            if not done:
                os.kill(pid, signal.SIGKILL)
                await asyncio.wait({future})
                future.exception()
                self._replace()
                raise ComputationTooLong(f"took longer than {timeout_seconds:g} seconds")
            return future.result()
        except BrokenProcessPool as error:
            self._replace()
            raise ComputationDied(
                f"the process that computed it died: {await _describe_end(child)}"
            ) from error

    def kill(self) -> None:
        """End the process in the middle of what it is doing, which ends with `ComputationDied`."""
        for process in multiprocessing.active_children():
            process.kill()

    def close(self) -> None:
        """Stop the process after what it is doing."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _replace(self) -> None:
        self._executor.shutdown(wait=False)
        self.incarnation += 1
        self._executor = self._start()


async def _describe_end(child: BaseProcess | None) -> str:
    if child is not None:
        await asyncio.to_thread(child.join, _END_SECONDS)
    if child is None or child.exitcode is None:
        return "killed, out of memory, or crashed"
    return f"it {describe_exit(child.exitcode)}"


def _prepare(memory_megabytes: int) -> None:
    # Ctrl-C reaches the whole process group; the worker decides what becomes of a computation.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Of data alone: address space is also taken by libraries that never touch it.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_megabytes << 20, memory_megabytes << 20))
    threading.Thread(target=_die_with_the_worker, daemon=True).start()


def _die_with_the_worker() -> None:
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
        os._exit(1)

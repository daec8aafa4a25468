"""Real worker processes that can be killed one by one."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from episodes_assets.cli.supervisor import worker_argv, worker_environment
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.system import System

PATIENCE_SECONDS = 60.0
_SHOWN_CHARACTERS = 4_000


class Fleet:
    """Workers of one system, each with its log in the home."""

    def __init__(self, system: System, environment: Mapping[str, str]) -> None:
        self._environment = {
            **os.environ,
            **worker_environment(system.settings, system.dsns),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._logs = system.home / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self.workers: dict[int, subprocess.Popen[bytes]] = {}  # by process id

    def start(self) -> int:
        """Start a worker; its process id."""
        with (self._logs / "starting.log").open("ab") as discarded:
            process = subprocess.Popen(
                worker_argv(),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=discarded,
                stderr=subprocess.STDOUT,
            )
        self.workers[process.pid] = process
        return process.pid

    def wait_until_ready(self) -> None:
        """Until all of them say so."""
        eventually(lambda: all(f"-{pid} is ready" in self.log for pid in self.workers))

    @property
    def log(self) -> str:
        """What the workers said."""
        return (self._logs / "starting.log").read_text(errors="replace")

    def name(self, pid: int) -> str:
        """What a worker calls itself in the ledger."""
        return f"{socket.gethostname()}-{pid}"

    def kill(self, pid: int) -> None:
        """SIGKILL a worker, and insist that what it started ends by itself."""
        process = self.workers.pop(pid)
        children = psutil.Process(pid).children(recursive=True)
        process.kill()
        process.wait()
        eventually(lambda: not any(is_running(child) for child in children), 10)

    def stop(self) -> None:
        """Ask all to end, and make sure that they have."""
        for process in self.workers.values():
            process.send_signal(signal.SIGTERM)
        for process in self.workers.values():
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.workers = {}


@contextmanager
def fleet(system: System, count: int, **environment: str) -> Iterator[Fleet]:
    """Workers that are ready when the block begins and gone when it ends."""
    workers = Fleet(system, environment)
    try:
        for _ in range(count):
            workers.start()
        workers.wait_until_ready()
        yield workers
    except Exception as error:
        # What does not happen, workers have often said why.
        error.add_note(f"the workers said last:\n{workers.log[-_SHOWN_CHARACTERS:]}")
        raise
    finally:
        workers.stop()


def is_running(process: psutil.Process) -> bool:
    """Whether a process still does anything."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

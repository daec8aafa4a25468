"""Two engines that take a profile of a running process: py-spy, and a sampler inside the process.

py-spy reads another process's memory, which need not know of it, may hang in a C library and is never stopped
(`--nonblocking`): so nothing is left behind that a killed profiler would have had to undo. The kernel may
refuse that (ptrace): then a thread inside the process looks at its threads instead. Both see all threads all
the time, also those that wait. What is made of what they saw is `stacks`.

An engine is given a process of ours by its caller, never one that somebody has named. It runs for a bounded
time, whatever becomes of its caller.
"""

import ctypes
import multiprocessing.connection
import os
import signal
import site
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Protocol

from episodes_assets.errors import ProfilerUnavailable
from episodes_assets.failures import describe_exit
from episodes_assets.profiling import stacks

DEFAULT_RATE = 100
MOST_RATE = 1_000
MOST_SECONDS = 600.0
_ATTACH_SECONDS = 5.0
_STOP_SECONDS = 20.0
_PR_SET_PTRACER = 0x59616D61
_STOP = b"stop"
_MOST_STACKS = 20_000
_LONGEST_REASON = 2_000


class Engine(StrEnum):
    """What takes a profile."""

    PY_SPY = "py-spy"
    SAMPLER = "sampler"


@dataclass(frozen=True)
class Sampling:
    """How a profile is taken, within bounds.

    Attributes:
        rate: Samples a second.
        seconds: After which it ends by itself.
    """

    rate: int = DEFAULT_RATE
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what would burden a process for long."""
        if not (1 <= self.rate <= MOST_RATE and 0 < self.seconds <= MOST_SECONDS):
            raise ProfilerUnavailable(
                f"{self.rate} samples a second for {self.seconds:g} seconds are out of bounds",
                f"ask for 1 to {MOST_RATE} samples and at most {MOST_SECONDS:g} seconds",
            )


class Recording(Protocol):
    """A profile that is being taken."""

    engine: Engine

    def stop(self) -> stacks.Profile:
        """End it; what was seen until then.

        Raises:
            ProfilerUnavailable: If nothing is to be had of it.
        """


def record(
    pid: int,
    sampling: Sampling,
    inside: Callable[[Sampling], Recording],
    say: Callable[[str], None],
) -> Recording:
    """Begin a profile of a process of ours by the best engine that is to be had; returns once it samples.

    Args:
        pid: The process.
        sampling: How.
        inside: Begins the sampler inside that process.
        say: Called with one line if py-spy is not to be had.

    Raises:
        ProfilerUnavailable: If neither engine is.
    """
    try:
        return PySpyRecording(pid, sampling)
    except ProfilerUnavailable as error:
        say(f"{error.what}; sampling inside the process instead")
        return inside(sampling)


def record_self(sampling: Sampling, say: Callable[[str], None]) -> Recording:
    """Begin a profile of this process, as `record`."""
    return record(os.getpid(), sampling, Sampler, say)


def allow_tracing_by(pid: int) -> None:
    """Let a process and its descendants trace this one where Linux restricts that (Yama); 0 lets none."""
    if sys.platform == "linux":
        # It fails where there is no Yama, and then nothing is restricted.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def py_spy() -> Path:
    """The program, as it was installed beside this Python.

    Raises:
        ProfilerUnavailable: If it was not.
    """
    path = Path(sysconfig.get_path("scripts"), "py-spy")
    if not path.is_file():
        raise ProfilerUnavailable("py-spy is not installed beside this Python", "run `make .venv/.installed`")
    return path


def import_roots() -> list[str]:
    """The folders that this environment's modules are imported from."""
    return [path for path in {*sys.path, *site.getsitepackages(), sysconfig.get_path("stdlib")} if path]


class PySpyRecording:
    """A profile of a process of ours that py-spy takes from outside.

    Args:
        pid: The process.
        sampling: How.

    Raises:
        ProfilerUnavailable: If py-spy is not there, or may not attach to the process.
    """

    engine = Engine.PY_SPY

    def __init__(self, pid: int, sampling: Sampling) -> None:
        self._rate = sampling.rate
        self._is_own = pid == os.getpid()
        program = py_spy()
        if self._is_own:
            allow_tracing_by(pid)  # py-spy is our child
        reading, writing = os.pipe()
        self._output = os.fdopen(reading, "rb", buffering=0)
        try:
            self._process = subprocess.Popen(
                [
                    str(program), "record", "--pid", str(pid), "--nonblocking", "--idle", "--threads",
                    "--full-filenames", "--rate", str(sampling.rate), "--duration",
                    str(max(round(sampling.seconds), 1)), "--format", "raw", "--output", f"/dev/fd/{writing}",
                ],
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={},  # it needs no DSN
                start_new_session=True,  # Ctrl-C is for us
            )  # fmt: skip
        except OSError as error:
            self._output.close()
            if self._is_own:
                allow_tracing_by(0)
            raise ProfilerUnavailable(f"py-spy cannot be started ({error.strerror})") from error
        finally:
            os.close(writing)
        if "Sampling process" not in (said := self._first_line()):
            if said:  # the rest of what it says comes at once
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_ATTACH_SECONDS)
            self._process.kill()
            assert self._process.stdout is not None  # noqa: S101  PIPE
            reason = _reason(said + self._process.stdout.read(_LONGEST_REASON).decode("utf-8", "replace"))
            self._end()
            raise ProfilerUnavailable(
                f"py-spy cannot attach to process {pid} ({reason})",
                "let the process be traced (ptrace; in a container, the capability SYS_PTRACE)",
            )

    def _first_line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101  PIPE
        ready = multiprocessing.connection.wait([self._process.stdout.fileno()], _ATTACH_SECONDS)
        return self._process.stdout.readline(_LONGEST_REASON).decode("utf-8", "replace") if ready else ""

    def stop(self) -> stacks.Profile:
        """End it; what was seen until then.

        Raises:
            ProfilerUnavailable: If py-spy was killed.
        """
        deadline = threading.Timer(_STOP_SECONDS, self._process.kill)
        deadline.start()
        try:
            self._process.send_signal(signal.SIGINT)
            text = self._read()
            if len(text) < stacks.MOST_TEXT_BYTES:
                self._process.wait()
        finally:
            deadline.cancel()
            self._end()
        # If it is told to end before it has seen anything, the signal itself may have ended it.
        if not text and self._process.returncode not in (0, -signal.SIGINT):
            raise ProfilerUnavailable(
                f"py-spy {describe_exit(self._process.returncode)}", "take another profile"
            )
        return stacks.parse_folded(text.decode("utf-8", "replace").split("\n"), self._rate, import_roots())

    def _read(self) -> bytes:
        parts = bytearray()
        while len(parts) < stacks.MOST_TEXT_BYTES and (part := self._output.read(1 << 20)):
            parts += part
        return bytes(parts)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._is_own:
            allow_tracing_by(0)


def _reason(said: str) -> str:
    """Why py-spy has ended, of what it has said."""
    if "permission denied" in said.lower():
        return "permission denied"
    first = said.strip().partition("\n")[0].removeprefix("Error: ").rstrip(".")
    return first if first.isprintable() and first else "it does not say why"


class Sampler:
    """A thread that looks at the stacks of all other threads of this process.

    What holds the interpreter's lock for long, such as a call into a C library that does not release it,
    delays it: the stack that it finds then counts for the time that has passed.

    Args:
        sampling: How.
    """

    engine = Engine.SAMPLER

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._seen: Counter[tuple[tuple[str, str, int], ...]] = Counter()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="sampler", daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        interval = 1 / self._sampling.rate
        own = threading.get_ident()
        due = time.perf_counter() + interval
        end = due + self._sampling.seconds
        while not self._stopped.wait(max(due - time.perf_counter(), 0)):
            passed = 1 + max(int((time.perf_counter() - due) / interval), 0)
            for thread, innermost in sys._current_frames().items():  # noqa: SLF001  the documented way
                if thread != own:
                    names = _names(innermost)
                    is_kept = len(self._seen) < _MOST_STACKS or names in self._seen
                    self._seen[names if is_kept else _RARE] += passed
            due += passed * interval
            if due > end:
                return

    def stop(self) -> stacks.Profile:
        """End it; what was seen until then."""
        self._stopped.set()
        self._thread.join()
        roots = import_roots()
        known: dict[tuple[str, str, int], stacks.Frame] = {}
        seen: Counter[stacks.Stack] = Counter()
        for names, count in self._seen.items():
            for each in names:
                if each not in known:
                    known[each] = stacks.frame(*each, roots)
            seen[stacks.within_most_frames([known[each] for each in names])] += count
        return stacks.Profile(self._sampling.rate, seen)


_RARE = ((stacks.RARE.function, stacks.RARE.file, stacks.RARE.line),)


def _names(innermost: FrameType | None) -> tuple[tuple[str, str, int], ...]:
    found: list[tuple[str, str, int]] = []
    while innermost is not None and len(found) <= stacks.MOST_FRAMES:
        code = innermost.f_code
        found.append((code.co_qualname, code.co_filename, innermost.f_lineno or 0))
        innermost = innermost.f_back
    return tuple(reversed(found))


def serve_sampler(requests: multiprocessing.connection.Connection) -> None:
    """Sample this process whenever the other end of a connection asks, until that is closed.

    It is for a thread of a process that works for another one; `RemoteSampler` is the other end.
    """
    sampler: Sampler | None = None
    with suppress(EOFError, OSError):
        while True:
            asked = requests.recv_bytes(100)
            seen = sampler.stop() if sampler is not None else stacks.Profile(1, {})
            sampler = None
            if asked == _STOP:
                requests.send_bytes(seen.pack())
            else:
                rate, seconds = asked.split()
                sampler = Sampler(Sampling(int(rate), float(seconds)))


class RemoteSampler:
    """A sampler in another process, which serves it by `serve_sampler`.

    Args:
        requests: The connection.
        lock: Of the connection: one profile at a time.
        sampling: How.

    Raises:
        ProfilerUnavailable: If the process is gone, or another profile is being taken there.
    """

    engine = Engine.SAMPLER

    def __init__(
        self, requests: multiprocessing.connection.Connection, lock: threading.Lock, sampling: Sampling
    ) -> None:
        self._requests = requests
        self._lock = lock
        self._rate = sampling.rate
        if not lock.acquire(blocking=False):
            raise ProfilerUnavailable("another profile is being taken inside the process", "wait for its end")
        try:
            while requests.poll():  # an answer that came too late
                requests.recv_bytes()
            requests.send_bytes(f"{sampling.rate} {sampling.seconds}".encode())
        except (OSError, EOFError) as error:
            lock.release()
            raise _gone() from error

    def stop(self) -> stacks.Profile:
        """End it; what was seen until then.

        Raises:
            ProfilerUnavailable: If the process is gone or does not answer.
        """
        try:
            self._requests.send_bytes(_STOP)
            if self._requests.poll(_STOP_SECONDS):
                return stacks.unpack(self._requests.recv_bytes(2 * stacks.MOST_BYTES), self._rate)
        except (OSError, EOFError) as error:
            raise _gone() from error
        finally:
            self._lock.release()
        raise ProfilerUnavailable(
            "the sampler inside the process does not answer: a library holds the interpreter's lock",
            "let py-spy attach to it (ptrace), which needs no answer",
        )


def _gone() -> ProfilerUnavailable:
    return ProfilerUnavailable("the process that was profiled is gone", "profile the next one")

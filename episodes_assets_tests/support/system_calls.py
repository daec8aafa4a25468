"""Stops a process before each system call that changes a file, and lets a fault strike at one of them.

The calls of native code count as those of Python do, and those of all threads in the order in which the
kernel sees them: a filter in the process (seccomp) has it hold each such call until this process has decided.
Statements to databases are no business of this module: `faults.py` counts them.
"""

import ctypes
import errno
import fcntl
import os
import platform
import re
import select
import signal
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from episodes_assets_tests.support.run_process import OwnProcess, own_process

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class _Kind:
    """A system call: its number by architecture, and which arguments are a path or a descriptor."""

    name: str
    x86_64: int | None
    aarch64: int | None
    path: int | None = None
    folder: int | None = None  # the descriptor that the path is relative to
    descriptor: int | None = None


_KINDS = (
    _Kind("open", 2, None, path=0),
    _Kind("openat", 257, 56, path=1, folder=0),
    _Kind("creat", 85, None, path=0),
    _Kind("rename", 82, None, path=1),
    _Kind("renameat", 264, 38, path=3, folder=2),
    _Kind("renameat2", 316, 276, path=3, folder=2),
    _Kind("link", 86, None, path=1),
    _Kind("linkat", 265, 37, path=3, folder=2),
    _Kind("symlink", 88, None, path=1),
    _Kind("unlink", 87, None, path=0),
    _Kind("unlinkat", 263, 35, path=1, folder=0),
    _Kind("mkdir", 83, None, path=0),
    _Kind("mkdirat", 258, 34, path=1, folder=0),
    _Kind("rmdir", 84, None, path=0),
    _Kind("chmod", 90, None, path=0),
    _Kind("fchmodat", 268, 53, path=1, folder=0),
    _Kind("truncate", 76, 45, path=0),
    _Kind("ftruncate", 77, 46, descriptor=0),
    _Kind("write", 1, 64, descriptor=0),
    _Kind("pwrite64", 18, 68, descriptor=0),
    _Kind("writev", 20, 66, descriptor=0),
    _Kind("pwritev", 296, 70, descriptor=0),
    _Kind("copy_file_range", 326, 285, descriptor=2),
    _Kind("sendfile", 40, 71, descriptor=0),
    _Kind("fallocate", 285, 47, descriptor=0),
    _Kind("fsync", 74, 82, descriptor=0),
    _Kind("fdatasync", 75, 83, descriptor=0),
)
_SECCOMP = {"x86_64": 317, "aarch64": 277}
# What a full disk refuses.
_NEED_ROOM = (
    "open",
    "creat",
    "rename",
    "link",
    "symlink",
    "mkdir",
    "write",
    "pwrite",
    "copy",
    "send",
    "falloc",
)
# Of an open, these change something.
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_FLAGS = {"open": 1, "openat": 2}

# From <linux/seccomp.h> and <linux/filter.h>.
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECEIVE, _SEND, _GO_ON = 0xC0502100, 0xC0182101, 1
_NOTIFICATION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")

_LONGEST_PATH = 4096
# A process's id, and the names of the lake's files, digests of their bytes: a drop's say when it was taken.
_UNIQUE = re.compile(
    r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])|tmp[0-9a-z_]{8}|(?<=\.)\d+(?=\.part)"
    r"|[0-9a-f]{40}\.[0-9a-f]{16}(?=\.parquet)"
)


@dataclass(frozen=True)
class FileChange:
    """The moment before a file is changed.

    Attributes:
        what: The system call and the file, without what differs from run to run.
        nth: Which of that kind, from 1.
    """

    what: str
    nth: int

    def __str__(self) -> str:
        return f"{self.what} ({self.nth})"


@dataclass
class Watched:
    """What a process has changed so far.

    Attributes:
        changes: The moments it has passed, in order.
        was_struck: Whether the fault has struck.
    """

    changes: list[FileChange] = field(default_factory=list)
    was_struck: bool = False


@contextmanager
def watched_process(
    folders: dict[str, Path],
    strike_at: FileChange | None,
    fault: int,
    function: Callable[P, R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Iterator[tuple[OwnProcess[R], Watched]]:
    """Run a function in a process whose changes to files below some folders are watched.

    The test is skipped where the kernel refuses such a filter.

    Args:
        folders: The folders, and what to call them.
        strike_at: Where the fault strikes; None to let the process go on.
        fault: `-SIGKILL`, or the errno with which that call and all later ones fail that need room.
        function: What to run; it must be one that can be imported.
        *args: Its arguments.
        **kwargs: Its keyword arguments.
    """
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in _SECCOMP:
        pytest.skip(f"system calls are not watched on {platform.system()} {machine}")
    ours, theirs = socket.socketpair()
    with ours, own_process(_behind_a_filter, theirs, function, args, kwargs) as process:
        theirs.close()
        said, descriptors, _, _ = socket.recv_fds(ours, 256, 1)
        if not descriptors:
            pytest.skip(f"system calls cannot be watched here: {said.decode()}")
        watched = Watched()
        supervisor = threading.Thread(
            target=_supervise, args=(descriptors[0], folders, strike_at, fault, watched), daemon=True
        )
        supervisor.start()
        yield process, watched
        process.process.join()
        supervisor.join()


def _behind_a_filter(
    supervisor: socket.socket, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> R:
    """In the process: have the kernel ask before each call, then run the function."""
    machine = platform.machine()
    numbers = [number for kind in _KINDS if (number := getattr(kind, machine)) is not None]
    statements = [(_LOAD_NUMBER, 0, 0, 0)]
    statements += [(_JUMP_IF_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    statements += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in statements))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(statements), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    # By the main thread: others that it starts inherit the filter.
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = libc.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _NEW_LISTENER, described)
    if listener < 0:
        supervisor.send(os.strerror(ctypes.get_errno()).encode())
        os._exit(0)
    socket.send_fds(supervisor, [b"x"], [listener])
    os.close(listener)
    supervisor.close()
    return function(*args, **kwargs)


def _supervise(
    listener: int, folders: dict[str, Path], strike_at: FileChange | None, fault: int, watched: Watched
) -> None:
    """Decide on each call, until the process is gone."""
    kinds = {getattr(kind, platform.machine()): kind for kind in _KINDS}
    counts: Counter[str] = Counter()
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while not poll.poll()[0][1] & select.POLLHUP:
            asked = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, asked)
            except FileNotFoundError:  # its thread is gone meanwhile
                continue
            number, pid, _, call, _, _, *arguments = _NOTIFICATION.unpack(asked)
            what = _name(kinds[call], pid, arguments, folders)
            error = 0
            if what is not None:
                counts[what] += 1
                change = FileChange(what, counts[what])
                watched.changes.append(change)
                watched.was_struck = watched.was_struck or change == strike_at
                if watched.was_struck and fault == -signal.SIGKILL:
                    with suppress(ProcessLookupError):  # killed before, or its thread is gone meanwhile
                        os.kill(pid, signal.SIGKILL)
                    continue
                error = fault if watched.was_struck and what.startswith(_NEED_ROOM) else 0
            with suppress(FileNotFoundError):
                fcntl.ioctl(listener, _SEND, _ANSWER.pack(number, 0, -error, 0 if error else _GO_ON))
    finally:
        os.close(listener)


def _name(kind: _Kind, pid: int, arguments: list[int], folders: dict[str, Path]) -> str | None:
    """The call and its file; None when it changes nothing below the folders."""
    if kind.name in _FLAGS and not arguments[_FLAGS[kind.name]] & _WRITING:
        return None
    try:
        if kind.descriptor is not None:
            path = str(Path(f"/proc/{pid}/fd/{arguments[kind.descriptor]}").readlink())
        else:
            assert kind.path is not None
            path = _read_text(pid, arguments[kind.path])
            if not path.startswith("/"):
                relative_to = ctypes.c_int(arguments[kind.folder] if kind.folder is not None else -100).value
                base = "cwd" if relative_to == -100 else f"fd/{relative_to}"
                path = str(Path(f"/proc/{pid}/{base}").readlink() / path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ESRCH, errno.EBADF}:
            return None
        raise
    for name, folder in folders.items():
        if path == str(folder) or path.startswith(f"{folder}/"):
            return _UNIQUE.sub("*", f"{kind.name} {name}{path.removeprefix(str(folder))}")
    return None


def _read_text(pid: int, address: int) -> str:
    """A path in the memory of another process."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        # It may end close before a page that is not there.
        found = memory.read(_LONGEST_PATH - address % _LONGEST_PATH)
        if b"\0" not in found:
            found += memory.read(_LONGEST_PATH)
    return found.partition(b"\0")[0].decode(errors="replace")

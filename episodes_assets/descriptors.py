"""The descriptors that the process was started with: standard streams, and what else a shell opened for it.

They are noted before the process opens anything itself. Standard streams are made reliable here: a closed one
leads nowhere, a non-blocking one is waited for. Which of them a path means, and what is read or written, is
`user_files`. The entry point imports this before anything slow, so it imports nothing that takes time.
"""

import io
import os
import select
import stat
import sys

TYPE_CHECKING = False  # importing it takes time
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_PIECE_BYTES = 1 << 16

_inherited: frozenset[int] | None = None


def take_over() -> None:
    """Note what the process was started with, before it opens anything itself, and make the streams reliable.

    Standard streams that were closed (`>&-`) lead nowhere from now on: else the next file or connection that
    is opened would get their number, and be written to. The others are read and written as
    `PatientFile`s.
    """
    global _inherited
    _inherited = _open_now()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
        else:
            setattr(sys, name, _patient(stream, mode))


def was_inherited(descriptor: int) -> bool:
    """Whether the process was started with it; of a process that has not noted that, whether it is open."""
    return _is_open(descriptor) if _inherited is None else descriptor in _inherited


class PatientFile(io.FileIO):
    """A descriptor that is waited for, also where it was set not to wait (O_NONBLOCK).

    Whoever shares an open file may set that, and what Python makes of it is a file that ends early, or half
    a write.
    """

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read what there is, at least one byte; 0 is the end."""
        while (count := super().readinto(buffer)) is None:
            self._wait(select.POLLIN)
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """Read what there is, at most so many bytes; all of it without a size."""
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def readall(self) -> bytes:
        """Read to the end."""
        if stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            return super().readall()  # in one piece, whose size is known
        return b"".join(iter(lambda: self.read(_PIECE_BYTES), b""))

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of it."""
        with memoryview(data).cast("B") as left:
            written = 0
            while written < len(left):
                count = super().write(left[written:])
                if count is None:
                    self._wait(select.POLLOUT)
                else:
                    written += count
            return written

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self.fileno(), event)
        poll.poll()


def _patient(stream: io.TextIOWrapper, mode: str) -> io.TextIOWrapper:
    """The same stream, with the same settings."""
    raw = PatientFile(stream.fileno(), mode, closefd=False)
    raw.name = stream.name
    buffer: PatientFile | io.BufferedReader | io.BufferedWriter = raw
    if mode == "r":
        buffer = io.BufferedReader(raw)
    elif not stream.write_through:  # as `python -u` has it
        buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_now() -> frozenset[int]:
    """Those of the standard streams at least, where the system does not tell."""
    try:
        listed = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208  pathlib takes time
    except OSError:
        listed = [0, 1, 2]
    # One was only open for the list itself.
    return frozenset(filter(_is_open, listed))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

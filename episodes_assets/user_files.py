"""Files that a user names: read whole, written whole, and standard streams used as they are.

What is written takes its name only when it is complete (atomic rename). Opening `/dev/stdout`, `/dev/stdin`
or `/dev/fd/N` makes a second open file description: it truncates what a shell redirected with `>>`, begins at
offset 0, and fails for sockets. Such a path is therefore taken as the descriptor that the process was given,
whatever its path: it may name no other, such as a file or a connection that the process itself has opened.
What is in a file is `input/files.py`; files of the system itself are made by `private_files`.
"""

import errno
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from episodes_assets.descriptors import PatientFile, was_inherited
from episodes_assets.errors import BadFile
from episodes_assets.failures import cannot_be_written, explain

_STDIN, _STDOUT = 0, 1
_STREAMS = ("standard input", "standard output", "standard error")
_LINKS_FOLLOWED = 40
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_PROCESS = re.compile(r"^Tgid:\s*([0-9]+)$", re.MULTILINE)


def user_path(typed: str) -> Path:
    """A path as it was typed: `./-` is a file, unlike `-`, which is a stream."""
    path = Path(typed)
    return Path.cwd() / path if str(path) == "-" and typed != "-" else path


def require_standard_output() -> None:
    """Make sure that what a command is about to print is not lost.

    Raises:
        BadFile: If standard output was closed when the process was started.
    """
    if not was_inherited(_STDOUT):
        raise _closed(_STDOUT)


def read_whole(path: Path) -> bytes:
    """The content of a file, a FIFO, or `-` for standard input.

    Raises:
        BadFile: If it is none of these, or changes while it is read.
        SystemFailure: If the machine does not let it be read: a missing right, no memory and the like.
    """
    try:
        descriptor = _STDIN if str(path) == "-" else _descriptor_named(path)
        if descriptor is not None:
            with PatientFile(_duplicated(descriptor), "r") as file:
                return _read(file, path)
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
            raise BadFile(f"{path} is not a file", "check the path")
        with PatientFile(path, "r") as file:
            return _read(file, path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadFile(f"{path} is not a file", "check the path") from error
    except OSError as error:
        if (cause := explain(error, str(path))) is not None:
            raise cause from error
        raise BadFile(f"{path} cannot be read ({error.strerror})", "check the path") from error


def _read(file: PatientFile, path: Path) -> bytes:
    before = os.fstat(file.fileno())
    content = file.readall()
    after = os.fstat(file.fileno())
    if stat.S_ISREG(before.st_mode) and (before.st_size, before.st_mtime_ns) != (
        after.st_size,
        after.st_mtime_ns,
    ):
        raise BadFile(f"{path} changed while it was read", "load it when it is complete")
    return content


def names_a_stream(path: Path) -> bool:
    """Whether what is written to the path goes to a descriptor that the process was given, as `-` does."""
    return str(path) == "-" or _descriptor_named(path) is not None


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its name only when the block ends without an error.

    `-` is standard output. Streams and special files are written to as they are; a file that is there keeps
    its mode and, where that is allowed, its owner.

    Raises:
        BadFile: If it cannot be written.
        BrokenPipeError: If nobody reads the stream any more.
    """
    try:
        if str(path) == "-":
            require_standard_output()
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif (descriptor := _descriptor_named(path)) is not None:
            sys.stdout.flush()
            with io.BufferedWriter(PatientFile(_duplicated(descriptor), "w")) as file:
                yield file
        elif path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
        else:
            with _replacing(Path(os.path.realpath(path))) as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is not None:
            error.filename = str(path)  # not the temporary one
        raise cannot_be_written(path, error) from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    part = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            with suppress(FileNotFoundError):
                _copy_mode_and_owner(path, file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _copy_mode_and_owner(path: Path, descriptor: int) -> None:
    os.close(os.open(path, os.O_WRONLY))  # a file that may not be written may not be replaced either
    was = path.stat()
    with suppress(PermissionError):
        os.fchown(descriptor, was.st_uid, was.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(was.st_mode))


def _duplicated(descriptor: int) -> int:
    if was_inherited(descriptor):
        return os.dup(descriptor)
    if descriptor < len(_STREAMS):
        raise _closed(descriptor)
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _closed(descriptor: int) -> BadFile:
    return BadFile(f"{_STREAMS[descriptor]} is closed", "let it lead to a file or a pipe, or name a file")


def _descriptor_named(path: Path) -> int | None:
    """The N of `/dev/fd/N`, `/proc/self/fd/N` and of links to them, such as `/dev/stdout`."""
    for _ in range(_LINKS_FOLLOWED):
        folder = Path(os.path.realpath(path.parent))
        if _NUMBER.fullmatch(path.name) and _holds_own_descriptors(folder):
            return int(path.name)
        if not path.is_symlink():
            return None
        path = folder / path.readlink()
    return None


def _holds_own_descriptors(folder: Path) -> bool:
    """Whether it is `/proc/self/fd`, by any of its names: that of the process or of one of its threads."""
    own = Path("/proc/self")
    try:
        return (
            folder.name == "fd"
            and folder.stat().st_dev == own.stat().st_dev
            and _process_of(folder.parent) == _process_of(own)
        )
    except OSError:
        return False


def _process_of(folder: Path) -> str:
    """The id of the process of which a folder of /proc tells."""
    found = _PROCESS.search((folder / "status").read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else ""

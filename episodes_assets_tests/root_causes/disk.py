"""A small disk that can be filled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A mounted file system of a fixed size."""

    path: Path

    @property
    def filler(self) -> Path:
        return self.path / "filler"

    def fill(self, *, leave: int = 0) -> None:
        """Take all of it but so many bytes."""
        found = os.statvfs(self.path)
        size = found.f_bavail * found.f_frsize - leave
        with self.filler.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), size)

    def free(self) -> None:
        self.filler.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Disk]:
    """A tmpfs while the block lasts; the test is skipped where none may be mounted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)

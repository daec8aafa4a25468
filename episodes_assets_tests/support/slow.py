"""A function that is slow in one line, for profilers to find; and processes that do not let them look."""

import ctypes
import time
from pathlib import Path

from episodes_assets.profiling.stacks import Profile

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _CAP_SYS_PTRACE = 4, 24, 19


def is_slow(seconds: float) -> int:
    """Be busy for so long."""
    end = time.monotonic() + seconds
    total = 0
    while time.monotonic() < end:
        total += sum(number * number for number in range(20_000))  # the slow line
    return total


def hangs(seconds: float) -> None:
    """Wait inside the C library, as for a server that does not answer."""
    time.sleep(seconds)  # the line that hangs


def line_of(comment: str) -> int:
    """The number of the line with a comment in this file."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# {comment}"))


def of_the_slow_thread(profile: Profile) -> Profile:
    """What was seen of `is_slow`; a process that runs tests has threads that wait in their own ways."""
    stacks = {
        stack: count
        for stack, count in profile.stacks.items()
        if any(each.file.endswith("support/slow.py") for each in stack)
    }
    return Profile(profile.rate, stacks)


def share_of_line(profile: Profile, comment: str) -> float:
    """The share of a profile's samples in which a line of this file was being executed."""
    line = line_of(comment)
    found = [
        count
        for stack, count in profile.stacks.items()
        if any(each.file.endswith("support/slow.py") and each.line == line for each in stack)
    ]
    return sum(found) / max(profile.samples, 1)


def refuse_tracing() -> None:
    """Let nobody trace this process, nor what it starts trace anything: as where ptrace is forbidden."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    # Of root, what it starts would have the right all the same. Others have nothing to drop.
    prctl(_PR_CAPBSET_DROP, _CAP_SYS_PTRACE, 0, 0, 0)

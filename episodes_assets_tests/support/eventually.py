"""Waiting for what is to happen, in place of waiting for a time."""

import time
from collections.abc import Callable


def eventually(check: Callable[[], bool], seconds: float = 60.0, pause: float = 0.02) -> None:
    """Wait until something holds.

    Args:
        check: Whether it does.
        seconds: After which the test fails.
        pause: Between two looks.
    """
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(pause)

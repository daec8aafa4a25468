"""How the process of a command answers SIGINT and SIGTERM.

While modules are imported it leaves at once: an import that KeyboardInterrupt breaks off ends in whatever the
module makes of it. Otherwise it ends in order, so that workers stop, and a database that nobody else uses.
The entry point imports this before anything else, so it imports nothing that takes time. Stopping child
processes is `cli/supervisor.py`.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# How long a signal that has come is left to be answered in order.
HELD_BACK_SECONDS = 10.0


def leave_at_once() -> None:
    """Answer signals with one word and the exit code; an ignored SIGINT stays ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)


def end_in_order() -> None:
    """Answer signals with exceptions: KeyboardInterrupt, and SystemExit with the exit code."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _exit)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Leave at once while the block lasts, which starts nothing that would have to be stopped."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    leave_at_once()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SignalsHeldBack:
    """The signals that have come while they were held back."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._since = 0.0

    def note(self, number: int, _frame: object) -> None:
        """Answer a signal: the first is kept, and one that comes much later than that ends the process."""
        if self._number is None:
            self._number, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > HELD_BACK_SECONDS:
            _leave(number, None)
        else:
            _say(
                b"it is being undone already; a signal in %.0f seconds ends it at once\n" % HELD_BACK_SECONDS
            )

    def raise_any(self) -> None:
        """End in order if a signal has come.

        Raises:
            KeyboardInterrupt: For SIGINT.
            SystemExit: For another one, with its exit code.
        """
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._number is not None:
            _exit(self._number, None)


@contextmanager
def holding_signals_back() -> Iterator[SignalsHeldBack]:
    """Have signals answered where the block asks for them, and nowhere else, so that it can undo its work.

    A lost terminal counts as well; what nohup starts goes on, as does what ignores SIGINT. Whoever does not
    want to wait for a block that hangs sends a second signal after `HELD_BACK_SECONDS`.
    """
    held = SignalsHeldBack()
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield held
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, held.note)
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_interrupted() -> None:
    """The one word."""
    _say(b"interrupted\n")


def _say(text: bytes) -> None:
    try:
        os.write(2, text)
    except OSError:  # nobody reads it, or not now
        return


def _leave(number: int, _frame: object) -> None:
    say_interrupted()
    os._exit(128 + number)


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)

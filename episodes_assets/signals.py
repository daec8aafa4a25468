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
from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def ending_on_hangup() -> Iterator[None]:
    """End in order also when the terminal is lost, while the block lasts; what nohup starts goes on."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    ):
        yield
        return
    before = signal.signal(signal.SIGHUP, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def say_interrupted() -> None:
    """The one word."""
    try:
        os.write(2, b"interrupted\n")
    except OSError:  # nobody reads it, or not now
        return


def _leave(number: int, _frame: object) -> None:
    say_interrupted()
    os._exit(128 + number)


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)

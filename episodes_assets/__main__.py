"""The entry point of the `episodes` command, and of `python -m episodes_assets`.

It imports nothing that takes time, not even `typing`, so that signals are answered as soon as Python itself
has started: the command's own imports take up to a second, in which Ctrl-C would be a traceback from wherever
it hit.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command: SIGINT ends it with one word and exit code 130, SIGTERM with 143.

    SIGTERM is taken even if the parent process ignored it; an ignored SIGINT stays so, which is how a shell
    keeps Ctrl-C from its background jobs.
    """
    _leave_at_once_on_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    from episodes_assets import descriptors

    descriptors.take_over()
    # For all that a command starts, Dagster's own processes included: in a shared folder, a `csv.py` is other
    # people's code.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        from episodes_assets.commands.app import invoke

        _end_in_order_on_signals()
        invoke()
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(128 + signal.SIGINT)
    finally:
        # What is left is the interpreter's own end, whose tracebacks nobody can catch.
        _leave_at_once_on_signals()


def _leave_at_once_on_signals() -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave_at_once)
    signal.signal(signal.SIGTERM, _leave_at_once)


def _end_in_order_on_signals() -> None:
    """Let workers stop, and a database that nobody else uses."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _exit)


def _leave_at_once(number: int, _frame: object) -> None:
    _say_interrupted()
    os._exit(128 + number)


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _say_interrupted() -> None:
    try:
        os.write(2, b"interrupted\n")
    except OSError:  # nobody reads it, or not now
        return


if __name__ == "__main__":
    # The interpreter puts the current folder first, unless it was started with -P.
    if not sys.flags.safe_path:
        del sys.path[0]
    main()

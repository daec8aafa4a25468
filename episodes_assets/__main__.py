"""The entry point of the `episodes` command, and of `python -m episodes_assets`.

It imports nothing that takes time, not even `typing`, so that signals are answered as soon as Python itself
has started. Neither it nor what it starts takes modules from the current folder (untrusted search path).
What commands do is in `cli/`.
"""

import os
import signal
import sys

from episodes_assets import signals


def main() -> None:
    """Run the command: SIGINT ends it with one word and exit code 130, SIGTERM with 143.

    SIGTERM is taken even if the parent process ignored it; an ignored SIGINT stays so, which is how a shell
    keeps Ctrl-C from its background jobs.
    """
    signals.leave_at_once()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    from episodes_assets import descriptors

    descriptors.take_over()
    # For all that a command starts, Dagster's own processes included: in a shared folder, a `csv.py` is other
    # people's code.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        from episodes_assets.cli.app import invoke

        signals.end_in_order()
        invoke()
    except KeyboardInterrupt:
        signals.say_interrupted()
        sys.exit(128 + signal.SIGINT)
    finally:
        # What is left is the interpreter's own end, whose tracebacks nobody can catch.
        signals.leave_at_once()


if __name__ == "__main__":
    # The interpreter puts the current folder first, unless it was started with -P.
    if not sys.flags.safe_path:
        del sys.path[0]
    main()

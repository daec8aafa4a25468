"""Becomes another program that gets a SIGTERM when the process that started it is gone, even by SIGKILL.

For programs that are not ours and so cannot look after their parent themselves. A parent's other children,
or a pipe, would not do: nothing of the parent's runs after a SIGKILL but the kernel.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def argv() -> list[str]:
    """What to put before a command line, to bind it to this process.

    The kernel means the thread that starts it: when that ends, the program gets the signal as well.
    """
    return [sys.executable, "-m", __name__, str(os.getpid())]


def main() -> None:
    """Bind this process to the one whose id is the first argument, then become the others."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":  # other kernels have no such signal
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit("the parent process is gone")
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()

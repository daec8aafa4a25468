"""Becomes another program, which takes signals as by default and ends with the process that started it.

**Signals.** What a process ignores or blocks, its children ignore or block as well, through `exec`. A shell
that is not interactive has its background jobs ignore SIGINT; where SIGINT is ignored, each run that Dagster
executes leaves SIGTERM ignored too (it copies the one's handler to the other). Such a child could neither be
stopped nor be bound to its parent. So all of them are reset.

**Parent.** On Linux the program gets a SIGTERM when its parent is gone, even by SIGKILL, after which nothing
of the parent runs but the kernel. This is for programs that are not ours and so cannot look after their
parent themselves.

It runs as a file by itself, without `site` and without the package: it costs about 15 ms.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_UNBOUND = 0


def argv(parent: int = _UNBOUND) -> list[str]:
    """The prefix of a command line whose program is to be started by this module.

    Args:
        parent: This process's id, to bind the program to it. To the kernel, the parent is the thread that
            starts the program: when that thread ends, the program gets the signal as well.
    """
    return [sys.executable, "-I", "-S", __file__, str(parent)]


def main() -> None:
    """Bind this process to the one whose id is the first argument, then become the others."""
    parent, *command = sys.argv[1:]
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if int(parent) != _UNBOUND:
        if sys.platform == "linux":  # other kernels have no such signal
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have ended before (a race); then init or a subreaper has adopted this process.
        if os.getppid() != int(parent):
            raise SystemExit("the parent process is gone")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()

"""A process's own log, in which every event is one line of its own, whatever was sent to it.

Protects against log injection. What commands print is `console`'s.
"""

import logging
from types import TracebackType

from episodes_assets.commands.console import escaped

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class OneLine(logging.Formatter):
    """Writes control characters as escapes, so that nobody's name or query looks like another line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line of an event."""
        return escaped(super().formatMessage(record).rstrip("\n"))

    def formatException(self, ei: _Raised) -> str:  # noqa: N802
        """A traceback, indented: what it quotes begins no line."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """A stack, indented in the same way."""
        return _indented(super().formatStack(stack_info))


def log_to_stderr() -> None:
    """Log warnings and what is worse, with the time of each."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def keep_unconfigured_logs_to_one_line() -> None:
    """The same for the warnings of a command that has set up no log."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(OneLine("%(message)s"))


def _indented(text: str) -> str:
    return "\n".join(f"  {escaped(line)}" for line in text.splitlines())

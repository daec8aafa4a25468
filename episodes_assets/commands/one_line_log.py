"""A process's own log, in which every event is one line of its own, whatever was sent to it."""

import logging
from types import TracebackType

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class OneLine(logging.Formatter):
    """Writes control characters as escapes, so that nobody's name or query looks like another line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line of an event."""
        return _escaped(super().formatMessage(record).rstrip("\n"))

    def formatException(self, ei: _Raised) -> str:  # noqa: N802
        """A traceback, indented: what it quotes begins no line."""
        return "\n".join(f"  {_escaped(line)}" for line in super().formatException(ei).splitlines())


def _escaped(text: str) -> str:
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )

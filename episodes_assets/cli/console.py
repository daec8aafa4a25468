"""Where commands print, and how a process's own log is written: nothing from data acts on a terminal.

Results go to stdout, everything else to stderr, with colours on a terminal only. All printing of a command
goes through the two consoles here, because much of what is printed comes from data: error texts, reasons,
names, lines of child processes. They protect the operator's terminal from escape sequences (terminal
injection) and from characters that hide or reorder text. In a log every event is one line of its own,
whatever was sent to it (log injection). What is printed is each command's to say.
"""

import datetime as dt
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from episodes_assets.settings import LogFormat

# Wide enough for every table: a pipe or a log file has no width of its own.
_PIPE_WIDTH = 140
# Printable to Python, and yet invisible: fillers, joiners and variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Colours, bold and the like; of all escape sequences only these are taken over from child processes.
_COLOUR = re.compile("(\x1b\\[(?:[0-9]{1,3}(?:;[0-9]{1,3}){0,15})?m)")


def escaped(text: str) -> str:
    r"""A text in which whatever is not a visible character is spelt out, as `\x1b` or `\u202e`.

    That is every control character (line ends too), bidirectional controls, zero-width and other invisible
    characters, and surrogates.
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else _escape(each) for each in text)
    return _INVISIBLE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class PlainConsole(Console):
    """A console on which data is shown literally and cannot control the terminal.

    A string is one line, without markup and without emoji codes; see `block` for texts of several lines. In
    whatever else is rendered, control characters are spelt out; hyperlinks and hiding are dropped.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  those of Console
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401  those of Console
        """A string, escaped before it is measured."""
        return super().render_str(escaped(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything that is printed, escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else _harmless(segment)


def _harmless(segment: Segment) -> Segment:
    style = segment.style
    if style is not None and (style.link or style.conceal):
        style = style.update_link(None) + Style(conceal=False)
    return Segment("\n".join(map(escaped, segment.text.split("\n"))), style)


def block(text: str) -> Text:
    """A text of several lines, such as a traceback, indented so that none looks like a line of ours."""
    return Text("\n".join(f"  {escaped(line.expandtabs())}" for line in text.splitlines()))


def child_line(line: str) -> Text:
    """A line that a child process printed, with its colours; other escape sequences are spelt out."""
    parts = _COLOUR.split(line)
    parts[::2] = map(escaped, parts[::2])
    return Text.from_ansi("".join(parts))


def install_exception_hooks() -> None:
    """Have the traceback of an uncaught exception printed like any other text that may quote data."""

    def show(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        err.print(block("".join(traceback.format_exception(kind, error, trace))), soft_wrap=True)

    def show_in_thread(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_type is not SystemExit:
            show(ended.exc_type, ended.exc_value, ended.exc_traceback)

    sys.excepthook = show
    threading.excepthook = show_in_thread


out = PlainConsole(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
err = PlainConsole(stderr=True)


_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class OneLine(logging.Formatter):
    """A log formatter that escapes control characters, so that data cannot look like another line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line of an event."""
        return escaped(super().formatMessage(record).rstrip("\n"))

    def formatException(self, ei: _Raised) -> str:  # noqa: N802
        """A traceback, indented, so that data which it quotes begins no line."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """A stack, indented in the same way."""
        return _indented(super().formatStack(stack_info))


class JsonLine(logging.Formatter):
    """A log formatter for machines: each event is one JSON object on a line of its own, in ASCII.

    `time` is UTC with milliseconds; `exception` and `stack` are there where the event has them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of an event."""
        event = {
            "time": f"{dt.datetime.fromtimestamp(record.created, dt.UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = record.stack_info
        return json.dumps(event)


def log_to_stderr(log_format: LogFormat) -> None:
    """Log warnings and errors, with the time of each.

    Args:
        log_format: For people or for machines.
    """
    handler = logging.StreamHandler()
    text = OneLine("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLine() if log_format == "json" else text)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def keep_unconfigured_logs_to_one_line() -> None:
    """Have the warnings of a command that has not configured logging written as by `OneLine`, too."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(OneLine("%(message)s"))


def _indented(text: str) -> str:
    return "\n".join(f"  {escaped(line)}" for line in text.splitlines())


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show, on a terminal, how far a command is, until the block ends.

    Yields:
        To be called with what is done, how much of it is finished, and how much there is.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield report

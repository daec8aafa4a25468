"""What `episodes up` shows: the state of each process, the address, and what needs attention.

On a terminal it is a screen that is drawn anew whenever something changes; anywhere else, and with all lines
of the processes, a line is printed for each change. What a process logs as a warning or an error needs
attention for some minutes; so do the alerts that are open, which are on record in the queue, and a database
that is away. The processes themselves are `up`'s.
"""

import datetime as dt
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from episodes_assets.cli.console import PlainConsole, child_line, escaped, out
from episodes_assets.cli.supervisor import LineSink
from episodes_assets.errors import EpisodesError
from episodes_assets.outbox.records import read_open_alerts
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import Dsns

WARNED_SECONDS = 300.0
REFRESHES_PER_SECOND = 1.0
LAST_LINES = 12
ENDED = "ended with"
_LONGEST_SHOWN = 300
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green")
_ESCAPES = re.compile("\x1b\\[[0-9;]*m")
# As this package, Dagster's programs and Dagster's runs write it: after the time and the logger's name.
_WARNING = re.compile(
    r"^\d{4}-\d\d-\d\d \S+ (?:[+-]\d{4} )?(?:- )?(?:[\w.]+ - )?(WARNING|ERROR|CRITICAL)\b[ -]*(?P<said>.*)",
    re.DOTALL,
)
_JSON_WARNING = re.compile(r'"level": *"(?:warning|error|critical)"', re.IGNORECASE)


def read_attention(dsns: Dsns) -> dict[str, str]:
    """The alerts that are open, as people are told of them, or which database is away.

    Args:
        dsns: Of `queue`, where alerts are on record, and `results`.

    Returns:
        Lines by what they are about, each with what to do.
    """
    found = {}
    try:
        with connect_to_read(dsns.require(Purpose.QUEUE), Purpose.QUEUE.database) as queue:
            for alert in read_open_alerts(queue):
                untold = f" (nobody was told: {alert.problem})" if alert.waiting and alert.problem else ""
                found[alert.key] = f"{alert.summary}: {alert.hint}{untold}"
        with connect_to_read(dsns.require(Purpose.RESULTS), Purpose.RESULTS.database):
            pass
    except EpisodesError as error:
        found["databases"] = str(error)
    return found


def warning_in(line: str) -> str | None:
    """What a line of a log warns of, or None for one that is no warning and no error."""
    plain = _ESCAPES.sub("", line)
    if plain.startswith("error: "):
        return plain
    if plain.startswith("{"):
        return plain if _JSON_WARNING.search(plain) else None
    found = _WARNING.match(plain)
    return found["said"] if found else None


@dataclass
class _Process:
    """What is known of a process: its state, how often it ended, its last lines, its last warning."""

    state: str = "waiting"
    ends: int = 0
    since: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    style: str = "dim"
    lines: list[str] = field(default_factory=list)
    warning: str = ""
    warned: float = -WARNED_SECONDS


class Overview:
    """The screen of a system, from the beginning of the block to its end.

    Its methods may be called from several threads.

    Args:
        address: Of the UI.
        names: Of the processes.
        logs: The folder of their logs.
        write: Takes each line for the logs.
        is_verbose: Whether to print each line of the processes as well.
        console: Where to.
    """

    def __init__(
        self,
        address: str,
        names: Sequence[str],
        logs: Path,
        write: LineSink,
        *,
        is_verbose: bool,
        console: PlainConsole = out,
    ) -> None:
        self._address = address
        self._logs = logs
        self._write = write
        self._console = console
        self._is_verbose = is_verbose
        self._processes = {name: _Process() for name in names}
        self._styles = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
        self._width = max(map(len, names))
        self._alerts: Mapping[str, str] = {}
        self._told: dict[str, str] = {}
        self._is_stopping = False
        self._lock = threading.RLock()
        has_screen = console.is_terminal and not is_verbose
        self._live = (
            Live(get_renderable=self._draw, console=console, refresh_per_second=REFRESHES_PER_SECOND,
                 redirect_stdout=False, redirect_stderr=False)
            if has_screen else None
        )  # fmt: skip

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        else:
            self.say(f"The processes' logs are in {self._logs}")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._live:
            for name in self._processes:
                self.change(name, "has stopped", "dim")
            self._live.stop()

    def say(self, line: str, style: str = "") -> None:
        """Print a line, above the screen where there is one."""
        with self._lock:
            self._console.print(line, style=style, soft_wrap=True)

    def stop(self) -> None:
        """Say that the processes are being stopped: what they warn of from now on is of no use."""
        with self._lock:
            self._is_stopping = True
            self.say("Stopping ...")

    def take_line(self, name: str, line: str) -> None:
        """Take a line that a process has printed."""
        self._write(name, line)
        with self._lock:
            process = self._processes[name]
            process.lines = [*process.lines, line][-LAST_LINES:]
            if warning := warning_in(line):
                process.warning, process.warned = warning[:_LONGEST_SHOWN], time.monotonic()
            if self._is_verbose:
                prefix = Text(f"{name:<{self._width}} | ", style=self._styles[name])
                self._console.print(prefix + child_line(line), soft_wrap=True)
            self._tell_attention()

    def last_lines(self, name: str) -> str:
        """The last lines that a process has printed."""
        with self._lock:
            return "\n".join(self._processes[name].lines)

    def log_of(self, name: str) -> Path:
        """Where all that a process prints is written to."""
        return self._logs / f"{name}.log"

    def change(self, name: str, state: str, style: str = "") -> None:
        """Show another state of a process."""
        with self._lock:
            process = self._processes[name]
            if state == process.state:
                return
            process.state, process.style, process.since = state, style, dt.datetime.now(dt.UTC)
            process.ends += state.startswith(ENDED)
            if not self._live:
                self.say(f"{name} {state}", style)

    def attend(self, alerts: Mapping[str, str]) -> None:
        """Show which alerts are open and which databases are away, as `read_attention` found it."""
        with self._lock:
            self._alerts = dict(alerts)
            self._tell_attention()

    @property
    def attention(self) -> dict[str, str]:
        """All that needs attention now, by what it is about."""
        if self._is_stopping:
            return self._told
        since = time.monotonic() - WARNED_SECONDS
        warned = {
            name: f"{name} warns: {process.warning} (more in {self.log_of(name)})"
            for name, process in self._processes.items()
            if process.warned > since
        }
        return {**self._alerts, **warned}

    def _tell_attention(self) -> None:
        """Without a screen, print what has come to need attention, and what does not need it any more."""
        if self._live:
            return
        now = self.attention
        for about in now.keys() - self._told.keys():
            self.say(f"Needs attention: {now[about]}", "yellow")
        for about in self._told.keys() - now.keys():
            self.say(f"Needs attention no more: {self._told[about]}")
        self._told = now

    def _draw(self) -> RenderableType:
        with self._lock:
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
            for column in ("process", "state", "since", "ended before"):
                table.add_column(column, no_wrap=True)
            for name, process in self._processes.items():
                since, ends = f"{process.since:%H:%M:%S} UTC", _count(process.ends)
                table.add_row(name, Text(escaped(process.state), process.style), since, ends)
            attention = self.attention
            lines = [Text(escaped(f"! {line}"), "yellow") for line in attention.values()]
            return Group(
                Text(""),
                Text.assemble(
                    ("UI    ", "dim"), (self._address, "bold"), ("   Ctrl-C stops everything", "dim")
                ),
                Text.assemble(("logs  ", "dim"), escaped(str(self._logs))),
                Text(""),
                table,
                Text(""),
                *(lines or [Text("nothing needs attention", "dim")]),
            )


def _count(times: int) -> str:
    return {0: "-", 1: "once"}.get(times, f"{times:,} times")

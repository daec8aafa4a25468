"""What `episodes up` shows: a screen on a terminal, a line for each change elsewhere, never a flood."""

import datetime as dt
import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from episodes_assets.alerts.conditions import Alert, Assessment, Kind, Severity
from episodes_assets.cli import overview, up
from episodes_assets.cli.console import JsonLine, PlainConsole
from episodes_assets.cli.overview import Overview, read_attention, warning_in
from episodes_assets.outbox import records
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets_tests.support.system import System

NAMES = ("code", "daemon", "ui", "worker-1")
TICK = "2026-11-30 09:44:41 +0000 - dagster.daemon.SensorDaemon - INFO - Sensor fan_out skipped: nothing"
LOST = "2026-11-30 09:44:41,286 WARNING lost the queue (no route)"


class Shown:
    """An overview, and what it has printed and logged."""

    def __init__(self, *, is_terminal: bool, is_verbose: bool = False) -> None:
        self.file = io.StringIO()
        self.logged: list[tuple[str, str]] = []
        console = PlainConsole(file=self.file, force_terminal=is_terminal, width=120, height=24)
        self.overview = Overview(
            "http://127.0.0.1:3000",
            NAMES,
            Path("/home/logs"),
            lambda name, line: self.logged.append((name, line)),
            is_verbose=is_verbose,
            console=console,
        )

    @property
    def text(self) -> str:
        return self.file.getvalue()


def test_without_a_terminal_changes_are_lines_and_the_rest_is_in_the_logs() -> None:
    shown = Shown(is_terminal=False)
    with shown.overview as it:
        for _ in range(2):
            it.change("daemon", "is running", "green")
        for _ in range(1_000):
            it.take_line("daemon", TICK)
        it.take_line("worker-1", LOST)
        it.take_line("worker-1", LOST)
        it.attend({"held": "3 held jobs"})
        it.attend({})
        it.stop()
        it.take_line("daemon", LOST)
    assert shown.text.splitlines() == [
        "The processes' logs are in /home/logs",
        "daemon is running",
        "Needs attention: worker-1 warns: lost the queue (no route) (more in /home/logs/worker-1.log)",
        "Needs attention: 3 held jobs",
        "Needs attention no more: 3 held jobs",
        "Stopping ...",
    ]
    assert len(shown.logged) == 1_003


def test_a_warning_needs_attention_for_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(is_terminal=False)
    with shown.overview as it:
        it.take_line("worker-1", LOST)
        assert list(it.attention) == ["worker-1"]
        monkeypatch.setattr(overview, "WARNED_SECONDS", 0.0)
        it.take_line("daemon", TICK)
        assert it.attention == {}
    assert "Needs attention no more: worker-1 warns" in shown.text


def test_all_lines_are_printed_on_request() -> None:
    shown = Shown(is_terminal=True, is_verbose=True)
    with shown.overview as it:
        it.take_line("daemon", f"{TICK}\x1b[2J")
    assert "daemon   |" in shown.text
    assert "fan_out skipped: nothing\\x1b[2J" in shown.text


def test_a_terminal_shows_one_screen_whatever_the_processes_print() -> None:
    shown = Shown(is_terminal=True)
    with shown.overview as it:
        for name in NAMES:
            it.change(name, "is running", "green")
        it.change("worker-1", "ended with -9; starting it again in 1 s", "bold red")
        for _ in range(1_000):
            it.take_line("daemon", TICK)
        it.take_line("ui", "2026-11-30 09:44:41,286 ERROR \x1b]0;title\x07 gone")
        shown.file.seek(0)
        shown.file.truncate()
        assert it._live is not None
        it._live.refresh()
    plain = overview._ESCAPES.sub("", shown.text)
    for part in (
        "http://127.0.0.1:3000",
        "/home/logs",
        *NAMES,
        "ended with -9; starting it again in 1 s",
        "once",
    ):
        assert part in plain
    assert "ui warns: \\x1b]0;title\\x07 gone" in plain
    assert "fan_out" not in plain
    assert plain.count("\n") < 24


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (TICK, None),
        (LOST, "lost the queue (no route)"),
        ("2026-11-30 09:44:41 +0000 - dagster.daemon - ERROR - Sensor failed", "Sensor failed"),
        (
            "\x1b[32m2026-11-30 09:44:41 +0000\x1b[0m - dagster - \x1b[34mERROR\x1b[0m - plan_day - failed",
            "plan_day - failed",
        ),
        ("error: the queue is gone", "error: the queue is gone"),
        ("2026-11-30 09:44:41,286 INFO no ERROR was found", None),
        ("  File 'x', line 3: raise ERROR", None),
        ('{"level": "INFO", "message": "WARNING"}', None),
    ],
)
def test_warnings_are_told_from_other_lines(line: str, said: str | None) -> None:
    assert warning_in(line) == said


def test_a_log_for_machines_has_an_object_on_each_line() -> None:
    try:
        int("no number")
    except ValueError as error:
        raised = (type(error), error, error.__traceback__)
    event_record = logging.LogRecord(
        "any", logging.ERROR, "any.py", 1, "by %s", ("Zoë\n\u202e\x1b[2J",), raised
    )
    line = JsonLine().format(event_record)
    assert line.isprintable()
    event = json.loads(line)
    assert event["message"] == "by Zoë\n\u202e\x1b[2J"
    assert (event["level"], event["logger"]) == ("ERROR", "any")
    assert event["exception"].endswith("ValueError: invalid literal for int() with base 10: 'no number'")
    assert dt.datetime.fromisoformat(event["time"]).tzinfo == dt.UTC
    assert warning_in(line) == line


def test_open_alerts_and_databases_that_are_away_need_attention(system: System) -> None:
    assert read_attention(system.dsns) == {}
    held, away = (Alert(kind, "", Severity.ERROR, f"{kind} is so", "", "repair it")
                  for kind in (Kind.JOBS_HELD, Kind.RESULTS_AWAY))  # fmt: skip
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        assessment = Assessment({each.key: each for each in (held, away)}, set(Kind))
        records.evaluate(queue, assessment, [], dt.datetime.now(dt.UTC), dt.timedelta(days=1), "a test")
    # The other one is not open yet: it may be over in a moment.
    assert read_attention(system.dsns) == {"jobs_held": "jobs_held is so: repair it"}
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    no_results = Dsns({**system.dsns.by_purpose, Purpose.RESULTS: nowhere}, is_embedded=False)
    found = read_attention(no_results)
    assert list(found) == ["jobs_held", "databases"]
    assert "127.0.0.1:1" in found["databases"]


def test_the_look_at_alerts_goes_on_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, stopping = Shown(is_terminal=False), threading.Event()
    looks: Iterator[Exception | dict[str, str]] = iter(
        [psycopg.errors.AdminShutdown("terminated"), {"jobs_held": "3 held jobs"}]
    )

    def read(_: Dsns) -> dict[str, str]:
        found = next(looks, None)
        if found is None:
            stopping.set()
            return {}
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(up, "read_attention", read)
    monkeypatch.setattr(up, "ATTENTION_SECONDS", 0)
    with shown.overview as it:
        up.watch_alerts(Dsns({}, is_embedded=False), stopping, it)
    assert "Needs attention: alerts cannot be read (AdminShutdown: terminated)" in shown.text
    assert "Needs attention: 3 held jobs" in shown.text

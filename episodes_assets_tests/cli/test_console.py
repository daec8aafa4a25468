"""What commands print: no escape sequence, hidden character, markup or forged line reaches the terminal."""

import ast
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.table import Table
from rich.text import Text

import episodes_assets
from episodes_assets.cli import app, console
from episodes_assets.cli.console import PlainConsole, block, child_line, escaped
from episodes_assets.errors import RunFailed
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.invoke import output
from episodes_assets_tests.support.plans import record
from episodes_assets_tests.support.system import System

pytestmark = pytest.mark.process

# Clipboard, title, hyperlink, cleared screen, a C1 sequence, hidden and reordered text, a forged line.
HOSTILE = (
    "\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\\x1b[2J\x1b[H"
    "\x9b31m\u202e\u200b\ufe0f\x08\r\nsucceeded [bold]:x:[/] \\[x]"
)
SHOWN = (
    r"\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\here\x1b]8;;\x1b\\x1b[2J\x1b[H"
    r"\x9b31m\u202e\u200b\ufe0f\x08\r\nsucceeded [bold]:x:[/] \[x]"
)


def terminal() -> tuple[PlainConsole, io.StringIO]:
    file = io.StringIO()
    return PlainConsole(file=file, force_terminal=True, color_system="truecolor", width=1_000), file


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@given(st.text(st.characters()))
def test_a_string_is_one_line_that_says_what_it_holds(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    screen, file = terminal()
    screen.print(text, soft_wrap=True)
    assert file.getvalue() == f"{shown}\n"


@given(st.text(st.characters()))
def test_whatever_is_rendered_is_harmless(text: str) -> None:
    screen, file = terminal()
    table = Table(text, title=text, caption=text, box=None)
    table.add_row(text)
    table.add_row(Group(text, Text(text, style="conceal link http://evil.example")))
    screen.print(table)
    screen.print(Text(text), block(text), soft_wrap=True)
    plain = file.getvalue()
    for style in ("\x1b[1m", "\x1b[2;3m", "\x1b[3m", "\x1b[0m", "\x1b[2m"):
        plain = plain.replace(style, "")
    assert is_harmless(plain)


def test_a_hostile_text_is_shown_as_it_is() -> None:
    screen, file = terminal()
    screen.print(HOSTILE, soft_wrap=True)
    assert file.getvalue() == f"{SHOWN}\n"


def test_a_block_begins_no_line_of_its_own() -> None:
    assert block("Traceback\n\tx\r\nheld: 1\x1b[2J\u2028y").plain.splitlines() == [
        "  Traceback", "          x", r"  held: 1\x1b[2J", "  y",
    ]  # fmt: skip


def test_of_child_processes_only_colours_are_kept() -> None:
    screen, file = terminal()
    screen.print(
        child_line(f"\x1b[32mgreen\x1b[0m \x1b[8mhidden\x1b[0m \x1b[{'9' * 5_000}m{HOSTILE}"), soft_wrap=True
    )
    shown = file.getvalue()
    assert shown.startswith("\x1b[32mgreen\x1b[0m hidden ")
    assert shown.endswith(f"{SHOWN}\n")
    assert "\x1b" not in shown.removeprefix("\x1b[32mgreen\x1b[0m")


@given(st.text(st.sampled_from("\x1b\x9b[]();:?0123456789mMHJ8²a \\\x07\r\n")))
def test_no_line_of_a_child_process_is_an_error(line: str) -> None:
    screen, file = terminal()
    screen.print(child_line(line.replace("\n", "")), soft_wrap=True)
    assert is_harmless(Text.from_ansi(file.getvalue()).plain)


def test_everything_is_printed_by_the_two_consoles() -> None:
    """`print`, `typer.echo`, another Console, or a string with markup would go round them."""
    folder = Path(episodes_assets.__file__).parent
    for file in [*folder.rglob("*.py")]:
        if file == Path(console.__file__):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("print", "typer.echo", "typer.secho", "click.echo", "Console"), file
                assert not (name.startswith(("sys.stdout.", "sys.stderr.")) and "write" in name), file
                assert not name.endswith("from_markup"), file
                given = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert given.get("markup", "False") == "False", file


def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RunFailed(HOSTILE, HOSTILE)

    monkeypatch.setattr(app, "app", fail)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr("threading.excepthook", None)
    monkeypatch.setattr(logging.lastResort, "formatter", None)
    with pytest.raises(SystemExit):
        app.invoke()
    assert capsys.readouterr().err == f"error: {SHOWN}: {SHOWN}\n"


DEFECTS = """
import logging, sys, threading
from episodes_assets.cli import app
def fail():
    logging.getLogger("any").warning("of a log %s", sys.argv[1])
    thread = threading.Thread(target=lambda: int(sys.argv[1]))
    thread.start()
    thread.join()
    raise KeyError("x") from ValueError("of the end\\x1b[2J\\nerror: " + sys.argv[1])
app.app = fail
app.invoke()
"""


@pytest.mark.parametrize("home", ["home", "file/home"])
def test_defects_and_logs_are_no_way_around(tmp_path: Path, home: str) -> None:
    """Also where the traceback is printed, since the home cannot be written."""
    (tmp_path / "file").touch()
    ended = subprocess.run(
        [sys.executable, "-c", DEFECTS, HOSTILE],
        env={**os.environ, "EPISODES_HOME": str(tmp_path / home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    first, *lines, last = ended.stderr.splitlines()
    assert first == f"of a log {SHOWN}"
    assert "invalid literal for int()" in ended.stderr
    assert last.startswith(r"error: ValueError: of the end\x1b[2J")
    assert is_harmless(last)
    assert all(line.startswith("  ") and is_harmless(line) for line in lines)


REFUSED = """
from episodes_assets.cli import app
def fail():
    raise PermissionError(13, "Permission denied", "there")
app.app = fail
app.invoke()
"""


def test_a_known_cause_is_one_line_also_where_no_traceback_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = subprocess.run(
        [sys.executable, "-c", REFUSED],
        env={**os.environ, "EPISODES_HOME": str(tmp_path / "file" / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: this user may not read or write there (Permission denied: there): give this user the right"
        " (`chown`, `chmod`), or run as the user that owns it\n"
    )


def test_what_is_on_record_is_shown_as_it_is(system: System) -> None:
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        record(queue, 1)
    system.hold_jobs("true")
    system.query("queue", "UPDATE ledger.job_attempts SET error = %s, traceback = %s", [HOSTILE] * 2)
    status, _ = output("jobs", "status", "--traceback")
    output("jobs", "waive", "2018-03-01", "--reason", HOSTILE, "--by", "\x1b[2J:x:")
    waived, _ = output("jobs", "status")
    history, _ = output("history", "2018-03-01")
    for shown in (status, waived, history):
        assert is_harmless(shown)
        joined = "".join(shown.split())
        assert "".join(SHOWN.split()) in joined or r"\nsucceeded" in joined
        assert ":x:" in joined
        assert not any(line.startswith("succeeded") for line in shown.splitlines())


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    """Of a shell, of a process that runs in the background, of cron."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" --help {closed}', Path(sys.executable).with_name("episodes")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

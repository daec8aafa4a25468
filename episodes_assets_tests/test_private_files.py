"""Logs of bounded size: whoever writes them, nothing is lost before the oldest part is dropped."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from episodes_assets import private_files
from episodes_assets.private_files import OLDER_LOGS, LogFile, older_log, rotate_log

LINES = 400
pytestmark = pytest.mark.process


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files, "LOG_BYTES", 1_000)


def parts(path: Path) -> list[Path]:
    """All parts of a log, the newest first."""
    return [each for each in (path, *(older_log(path, n) for n in range(1, OLDER_LOGS + 2))) if each.exists()]


def test_a_log_and_its_older_parts_stay_small_and_private(small: None, tmp_path: Path) -> None:
    log = LogFile(tmp_path / "code.log")
    for number in range(LINES):
        log.write(f"line {number:4} \ud800")
    log.close()
    log.write("after the end")
    found = parts(log.path)
    assert len(found) == OLDER_LOGS + 1
    lines = [line for part in reversed(found) for line in part.read_text().splitlines()]
    assert lines == [f"line {number:4} \\ud800" for number in range(LINES - len(lines), LINES)]
    for part in found:
        assert part.stat().st_size < 1_100
        assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_opened_for_a_moment_goes_on(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(tmp_path / "code.log")
    log.write("x" * 1_000)

    def fail(_: LogFile) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "_open", fail)
        log.write("lost")
    log.write("written")
    log.close()
    assert log.path.read_text() == "written\n"


WRITES = """
import sys
from pathlib import Path
from episodes_assets import private_files
private_files.LOG_BYTES, private_files.OLDER_LOGS = 1_000, 1_000
log = private_files.LogFile(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    log.write(f"{sys.argv[2]} {number}")
"""


def test_two_processes_rotate_one_log_without_losing_a_line(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    argv = [sys.executable, "-c", WRITES, str(path)]
    writers = [subprocess.Popen([*argv, name, "2000"]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    written = [line for part in tmp_path.iterdir() for line in part.read_text().splitlines()]
    assert sorted(written) == sorted(f"{name} {number}" for name in ("a", "b") for number in range(2000))


def test_what_another_program_holds_open_is_emptied_and_goes_on(small: None, tmp_path: Path) -> None:
    path = tmp_path / "postgres.log"
    with path.open("a") as held:
        held.write("x" * 999)
        held.flush()
        assert not rotate_log(path, is_held_open=True)
        held.write("y")
        held.flush()
        assert rotate_log(path, is_held_open=True)
        held.write("z")
    assert path.read_text() == "z"
    assert older_log(path, 1).read_text() == "x" * 999 + "y"
    assert not rotate_log(tmp_path / "none.log")

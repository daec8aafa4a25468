"""A lake is damaged after days were published from it: all who read it name it, and nothing is replaced."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import published_bytes
from episodes_assets_tests.chaos.fleet import fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import run_days
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.lake_contents import Copies, contents
from episodes_assets_tests.support.run_process import own_process
from episodes_assets_tests.support.system import System, day

DAYS = (day(1), day(2))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def change(path: Path) -> None:
    """One byte, in the middle."""
    content = path.read_bytes()
    at = len(content) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def replace(path: Path) -> None:
    """By a whole file of another day."""
    other = next(each for each in path.parents[1].glob("day=*/*.parquet") if each.parent != path.parent)
    shutil.copy(other, path)


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


OF_FILES: tuple[Callable[[Path], None], ...] = (Path.unlink, cut, change, replace)
OF_LOGS: tuple[Callable[[Path], None], ...] = (Path.unlink, cut, overwrite)


@contextmanager
def published(system: System, copies: Path) -> Iterator[Copies]:
    """A system whose two days are published; a copy of its lake."""
    system.generate(*DAYS, episodes=60)
    with own_process(run_days, system, *DAYS) as run:
        end = run.result()
    assert end.success, end.message
    yield Copies.of({"lake": Path(system.settings.lake)}, copies)


@pytest.mark.slow
def test_a_damaged_file_is_refused_by_all_and_published_by_none(
    system: System, chaos: Chaos, tmp_path: Path
) -> None:
    with fleet(system, 1) as workers, published(system, tmp_path / "copies") as whole:
        lake = Path(system.settings.lake)
        calm = contents(lake)
        before = [published_bytes(system, each) for each in DAYS]
        # Of the day before, which planning does not read: workers do.
        _, path, _, _ = next(file for file in calm["viewings"] if file[0] == str(DAYS[0]))
        file = lake / "viewings" / path
        for damage in chaos.sample(OF_FILES, 1):
            with chaos.attack(Promise.LAKE, "a file of the lake is removed, cut, changed or replaced"):
                damage(file)
                verified = system.cli("lake", "verify")
                assert verified.returncode == 1
                assert file.name in verified.stdout
                told = workers.log.count(file.name)
                with own_process(run_days, system, DAYS[1], rework=True) as run:
                    eventually(lambda told=told: workers.log.count(file.name) > told)  # type: ignore[misc]
                    assert [published_bytes(system, each) for each in DAYS] == before
                    # No job is to blame: the fleet waits until the file is there again.
                    held = system.query("queue", "SELECT count(*) FROM ledger.job_attempts WHERE is_held")
                    assert held == [(0,)]
                    whole.restore()
                    end = run.result()
                assert end.success, end.message
                assert [published_bytes(system, each) for each in DAYS] == before


@pytest.mark.slow
def test_a_damaged_log_is_refused_by_all_and_published_by_none(
    system: System, chaos: Chaos, tmp_path: Path
) -> None:
    with fleet(system, 1), published(system, tmp_path / "copies") as whole:
        lake = Path(system.settings.lake)
        before = [published_bytes(system, each) for each in DAYS]
        last = max((lake / "viewings" / "_delta_log").glob("*.json"))
        for damage in chaos.sample(OF_LOGS, 2):
            with chaos.attack(Promise.LAKE, "an entry of the lake's log is removed, cut or overwritten"):
                damage(last)
                for command in (("lake", "verify"), ("db", "status"), ("run", str(DAYS[1]), "--rework")):
                    if damage is Path.unlink and command[0] == "run":
                        continue  # it takes the day again
                    said = system.cli(*command)
                    assert said.returncode == 1, command
                    assert "Traceback" not in said.stderr
                    assert "viewings" in said.stderr + said.stdout, command
                assert [published_bytes(system, each) for each in DAYS] == before
            whole.restore()
        with own_process(run_days, system, DAYS[1], rework=True) as run:
            end = run.result()
        assert end.success, end.message
        assert [published_bytes(system, each) for each in DAYS] == before

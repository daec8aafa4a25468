"""A process is killed while it takes a day's input into the lake; taken again, the day is the same bytes."""

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from episodes_assets.days import ONE_DAY
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import (
    Fingerprint,
    assert_nothing_is_half_done,
    assert_same,
    fingerprint,
    forget_day,
)
from episodes_assets_tests.chaos.fleet import fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import RunEnd, run_days
from episodes_assets_tests.support.faults import Instant
from episodes_assets_tests.support.lake_contents import (
    Contents,
    Copies,
    contents,
    files_below,
    let_be_old,
    named_files,
)
from episodes_assets_tests.support.run_process import counted, killed_at, own_process
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.system_calls import FileChange, watched_process

DAY = day(2)
TAKING = ["input_episodes"]
NOWHERE = (
    "/nowhere/"  # `faults.watch` counts file operations below a folder: `system_calls` counts those here
)


def folders(system: System) -> dict[str, Path]:
    return {"lake": Path(system.settings.lake)}


def watch_late(system: System) -> None:
    """Let viewings of the day before arrive after that was taken."""
    system.insert_viewings([(7, 900_000 + n, f"{DAY - ONE_DAY} 10:00:{n:02}+00", 5, True) for n in range(20)])


def take(system: System) -> RunEnd:
    return run_days(system, DAY, select=TAKING)


def take_in_calm(system: System, before: Copies) -> tuple[list[FileChange], list[Instant], Contents]:
    """What is changed and said when the day is taken undisturbed, and what the lake then holds."""
    with watched_process(folders(system), None, 0, take, system) as (run, watched):
        end = run.result()
    assert end.success, end.message
    calm = contents(folders(system)["lake"])
    before.restore()
    with own_process(counted, NOWHERE, take, system) as counting:
        statements, end = counting.result()
    assert end.success, end.message
    assert contents(folders(system)["lake"]) == calm
    return watched.changes, statements, calm


def kill_while_taking(system: System, at: FileChange | Instant) -> None:
    """Take the day in a process that dies there; what a reader finds then is whole."""
    if isinstance(at, FileChange):
        with watched_process(folders(system), at, -signal.SIGKILL, take, system) as (run, watched):
            assert run.was_killed(), f"{at} was not reached"
            assert watched.was_struck
    else:
        with own_process(killed_at, at, NOWHERE, take, system) as run:
            assert run.was_killed(), f"{at} was not reached"
    contents(folders(system)["lake"])
    assert_nothing_is_half_done(system)


def take_again(system: System, calm: Contents) -> None:
    with own_process(take, system) as run:
        end = run.result()
    assert end.success, end.message
    assert contents(folders(system)["lake"]) == calm


class Leftovers:
    """What killed processes have left in the lake, from many copies of it.

    Args:
        lake: The lake.
        place: Where to keep them.
    """

    def __init__(self, lake: Path, place: Path) -> None:
        self._lake = lake
        self._place = place

    def keep(self) -> None:
        """Put those aside that are there now."""
        for name in files_below(self._lake) - named_files(self._lake):
            target = self._place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._lake / name, target)

    def put_back(self) -> set[str]:
        """Let them all be in the lake as it is now; which are no version's files."""
        shutil.copytree(self._place, self._lake, dirs_exist_ok=True)
        return files_below(self._lake) - named_files(self._lake)


def attack(
    system: System, chaos: Chaos, before: Copies, attacks: Sequence[FileChange | Instant], calm: Contents
) -> Leftovers:
    """Kill at each of some moments and take the day again."""
    leftovers = Leftovers(folders(system)["lake"], before.place / "leftovers")
    for at in attacks:
        before.restore()
        what = "change of a file" if isinstance(at, FileChange) else "statement"
        with chaos.attack(Promise.LAKE, f"SIGKILL at each {what} while a day is taken"):
            kill_while_taking(system, at)
            take_again(system, calm)
        leftovers.keep()
    return leftovers


def vacuum(system: System, leftovers: Leftovers) -> None:
    """Only what killed processes have left is removed, and all of that."""
    lake = folders(system)["lake"]
    expected = contents(lake)
    left = leftovers.put_back()
    let_be_old(lake)
    listed = system.cli("lake", "vacuum")
    assert listed.returncode == 0, listed.stderr
    assert all(any(name.endswith(line) for name in left) for line in listed.stdout.split())
    assert files_below(lake) >= left
    removed = system.cli("lake", "vacuum", "--remove")
    assert removed.returncode == 0, removed.stderr
    assert files_below(lake) == named_files(lake)
    assert contents(lake) == expected
    assert "are whole" in system.cli("lake", "verify").stdout


def prepare(system: System, place: Path) -> tuple[Copies, Fingerprint]:
    """Run a day and the next one in calm: the folders after the first, and all that there is in the end."""
    system.generate(day(1), DAY, episodes=60)
    with own_process(run_days, system, day(1)) as run:
        assert run.result().success
    watch_late(system)
    before = Copies.of(folders(system), place)
    with own_process(run_days, system, DAY) as run:
        end = run.result()
    assert end.success, end.message
    calm = fingerprint(system)
    forget_day(system, DAY)
    before.restore()
    return before, calm


@pytest.mark.slow
def test_a_day_is_taken_by_a_process_that_is_killed(system: System, chaos: Chaos, tmp_path: Path) -> None:
    with fleet(system, 1):
        before, published = prepare(system, tmp_path / "copies")
        changes, statements, calm = take_in_calm(system, before)
        # Each entry of Delta's log is a commit: of what arrived late, and of the day.
        entries = [change for change in changes if change.what.startswith("linkat lake/viewings/_delta_log")]
        assert len(entries) >= 2
        sampled: list[FileChange | Instant] = [*chaos.sample(changes, 2), *chaos.sample(statements, 1)]
        attacks: list[FileChange | Instant] = list(dict.fromkeys([*entries, *sampled]))
        leftovers = attack(system, chaos, before, attacks, calm)
        # What is made of it is the same as well.
        for at in chaos.random.sample(attacks, chaos.pick(short=1, long=12)):
            before.restore()
            with chaos.attack(Promise.LAKE, "a day that was killed while it was taken is published"):
                kill_while_taking(system, at)
                with own_process(run_days, system, DAY) as run:
                    end = run.result()
                assert end.success, end.message
                assert_same(fingerprint(system), published)
            forget_day(system, DAY)
    vacuum(system, leftovers)


@pytest.mark.slow
def test_a_lake_is_begun_by_a_process_that_is_killed(system: System, chaos: Chaos, tmp_path: Path) -> None:
    system.generate(day(1), DAY, episodes=60)
    before = Copies.of(folders(system), tmp_path / "copies")
    changes, statements, calm = take_in_calm(system, before)
    assert len(calm["viewings"]) == len({*map(os.path.dirname, (path for _, path, _, _ in calm["viewings"]))})
    attacks: list[FileChange | Instant] = [*chaos.sample(changes, 8), *chaos.sample(statements, 2)]
    vacuum(system, attack(system, chaos, before, attacks, calm))

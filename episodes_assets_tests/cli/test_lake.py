"""`episodes lake`: what an operator sees of the lake, and what vacuum leaves alone."""

import datetime as dt
import os
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from episodes_assets.cli.lake import status, vacuum, verify
from episodes_assets.errors import LakeMissing
from episodes_assets.lake.viewings import Viewings
from episodes_assets_tests.support.input_viewings import fill, watch
from episodes_assets_tests.support.lake_contents import files_below
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process

BEFORE = day(1) - dt.timedelta(days=1)


def age(folder: Path, days: int) -> None:
    """Let everything in it be written so many days ago."""
    then = time.time() - days * 86_400
    for path in folder.rglob("*.parquet*"):
        os.utime(path, (then, then))


def worked(system: System, first: dt.date, last: dt.date) -> None:
    result = system.materialize(first, last)
    assert result.success, failure(result)


@pytest.mark.slow
def test_the_lake_is_described_and_verified(system: System) -> None:
    assert "is empty" in system.cli("lake", "status").stdout
    fill(system, BEFORE, day(2))
    with system.workers():
        worked(system, day(1), day(2))
    shown = system.cli("lake", "status").stdout.split()
    tables = {"viewings", "episodes", "quarantine"}
    assert {*tables, "development", "2018-02-28", "2018-03-02", "45", "10"} <= set(shown)
    said = "7 files are whole, with the rows of: 10 episodes, 0 quarantine, 45 viewings."
    assert said in system.cli("lake", "verify").stdout
    drop = system.drops.require(day(2))
    damaged = {
        "viewings": system.viewings.at(1).files[BEFORE],
        "episodes": drop.episodes,
        "quarantine": drop.quarantine,
    }
    for table, file in damaged.items():
        path = Path(system.settings.lake, table, file.path)
        path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    verified = system.cli("lake", "verify")
    assert verified.returncode == 1
    for table, file in damaged.items():
        assert f"{table}/{file.path} was cut or changed" in verified.stdout.replace("\n", "")
    assert "3 of 7 files are damaged" in verified.stderr


@pytest.mark.slow
def test_vacuum_removes_what_nothing_names(system: System) -> None:
    fill(system, BEFORE, day(3))
    folder = Path(system.settings.lake, "viewings")
    with system.workers():
        worked(system, day(1), day(2))
    named = {path.name for path in folder.rglob("*.parquet")}
    # Two more versions of day 2: of the first nothing is made, the second is the newest.
    for first in (10, 20):
        watch(system, day(2), 1, first=first)
        system.take_viewings(day(2), day(2))
    (folder / "day=2018-03-01" / "0123.part").touch()  # of a process that was killed
    files = {path.name for path in folder.rglob("*") if path.is_file() and "_delta_log" not in str(path)}
    assert len(files) == len(named) + 3
    age(folder, 30)
    os.utime(folder / "day=2018-03-01" / "0123.part", (0, 0))
    listed = system.cli("lake", "vacuum")
    # Versions of late stay, whatever the age of their files: somebody may be planning from them.
    assert listed.stdout.split() == ["viewings/day=2018-03-01/0123.part"]
    assert "1 files of 0 bytes could be removed" in listed.stderr
    for path in (folder / "_delta_log").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        stamp = str(int(time.time() * 1000))[:4]
        path.write_text(text.replace(f'"timestamp":{stamp}', '"timestamp":1000'), encoding="utf-8")
    removed = system.cli("lake", "vacuum", "--remove")
    assert "2 files" in removed.stderr
    left = {path.name for path in folder.rglob("*") if path.is_file() and "_delta_log" not in str(path)}
    newest = Viewings(system.settings.lake).newest()
    assert newest is not None
    assert left == named | {file.path.rsplit("/", 1)[-1] for file in newest.files.values()}
    # Every day that was published can still be computed as it was.
    before = system.published()
    with system.workers():
        result = system.materialize(day(1), day(2), rework=True, as_planned=True)
        assert result.success, failure(result)
    assert system.published().equals(before)


@pytest.mark.long
def test_vacuum_keeps_the_drops_that_anything_was_made_from(system: System) -> None:
    fill(system, BEFORE, day(2))
    with system.workers():
        worked(system, day(1), day(2))
    published = system.drops.require(day(2))
    # Two more drops of day 2: of the first nothing is made, the second is the newest.
    for epid in (8, 9):
        system.insert_drop(day(2), [(epid, 0, "2018-02-01", "2018-02-20")])
        config = {"refresh": True, "reason": "more came"}
        result = system.materialize(day(2), select=["input_episodes"], config=config)
        assert result.success, failure(result)
    _, unnamed, newest = system.drops.versions(day(2))
    lake = Path(system.settings.lake)
    age(lake, 30)
    assert system.cli("lake", "vacuum").stdout == ""  # versions of late
    for path in lake.glob("*/_delta_log/*.json"):
        text = path.read_text(encoding="utf-8")
        stamp = str(int(time.time() * 1000))[:4]
        path.write_text(text.replace(f'"timestamp":{stamp}', '"timestamp":1000'), encoding="utf-8")
    removed = system.cli("lake", "vacuum", "--remove")
    assert removed.stdout.split() == [f"episodes/{unnamed.episodes.path}"]
    drops = system.drops
    assert drops.find_named({day(2): {each.snapshot_id for each in (published, unnamed, newest)}})[
        day(2)
    ].existing == {published.snapshot_id, newest.snapshot_id}
    # It stays on record, and what was made from the first can be looked at.
    assert [each.snapshot_id for each in drops.versions(day(2))][1] == unnamed.snapshot_id
    (rows,) = drops.read_drop(published, ["epid"])
    assert rows["epid"].tolist() == [1, 2, 3, 4, 5]
    assert "are whole" in system.cli("lake", "verify").stdout


@pytest.mark.long
def test_a_drop_that_the_log_has_lost_is_told_and_its_files_stay(system: System, tmp_path: Path) -> None:
    """Its files are known by the log alone: they look like those that nothing names."""
    fill(system, BEFORE, day(2))
    system.plan(day(1))
    system.plan(day(2))
    lake = Path(system.settings.lake)
    age(lake, 30)
    whole = Path(shutil.copytree(lake, tmp_path / "whole"))

    def put_back_an_older_log() -> None:
        for table in ("episodes", "quarantine"):
            max((lake / table / "_delta_log").glob("*.json")).unlink()

    def lose_the_log() -> None:
        shutil.rmtree(lake / "episodes" / "_delta_log")

    both = "2 of the drops .* of 2018-03-01, 2018-03-02"
    for harm, told in ((put_back_an_older_log, "1 of the drops .* of 2018-03-02"), (lose_the_log, both)):
        harm()
        left = files_below(lake)
        for command in (status, verify, partial(vacuum, 1), partial(vacuum, 1, remove=True)):
            with pytest.raises(LakeMissing, match=rf"lake/episodes lacks {told}, the first "):
                command()
        assert files_below(lake) == left
        shutil.rmtree(lake)
        shutil.copytree(whole, lake)
    # What is left over goes, and that alone.
    left_over = lake / "episodes" / "day=2018-03-02" / "0123.part"
    left_over.touch()
    os.utime(left_over, (0, 0))
    status()
    verify()
    vacuum(1, remove=True)
    assert files_below(lake) == files_below(whole)

"""A process that writes to the lake is killed, or its disk is full, at each change that it makes to files."""

import errno
import signal
from pathlib import Path

import pytest

from episodes_assets.errors import DiskFull
from episodes_assets.lake.viewings import Viewings
from episodes_assets_tests.support.lake_contents import (
    Contents,
    Copies,
    contents,
    files_below,
    let_be_old,
    named_files,
)
from episodes_assets_tests.support.run_process import own_process
from episodes_assets_tests.support.small_lakes import FIRST, ONE_DAY, rows_of, take
from episodes_assets_tests.support.system_calls import FileChange, watched_process

pytestmark = pytest.mark.long

DAYS = [FIRST, FIRST + ONE_DAY]
BEGUN = [pytest.param(False, marks=pytest.mark.slow, id="empty"), pytest.param(True, id="begun")]


def write(url: str, viewers: int) -> str:
    """Take two days, in one commit; why not, if it is not to be."""
    rows = [rows_of(day, *((epid, epid) for epid in range(viewers))) for day in DAYS]
    try:
        take(Viewings(url), *rows, days=DAYS)
    except DiskFull as error:
        return str(error)
    return ""


def prepare(lake: Path, *, is_begun: bool) -> tuple[Copies, list[FileChange], Contents]:
    """What the lake is before, what an undisturbed writer changes, and what the lake is then."""
    if is_begun:
        with own_process(write, str(lake), 3) as process:
            assert process.result() == ""
    before = Copies.of({"lake": lake}, lake.with_name("copy"))
    with watched_process({"lake": lake}, None, 0, write, str(lake), 5) as (process, watched):
        assert process.result() == ""
    return before, watched.changes, contents(lake)


@pytest.mark.parametrize("is_begun", BEGUN)
def test_a_writer_killed_at_each_change_of_a_file_leaves_nothing_that_is_seen(
    tmp_path: Path, *, is_begun: bool
) -> None:
    lake = tmp_path / "lake"
    before, changes, calm = prepare(lake, is_begun=is_begun)
    said = " ".join(change.what for change in changes)
    for expected in (
        "write lake/viewings/day",
        "rename lake/viewings/day",
        "fsync",
        "linkat lake/viewings/_del",
    ):
        assert expected in said
    old: Contents = {}
    for change in changes:
        before.restore()
        old = contents(lake)
        with watched_process({"lake": lake}, change, -signal.SIGKILL, write, str(lake), 5) as (process, _):
            assert process.was_killed(), change
        found = contents(lake)
        assert found in (old, {"viewings": []}, calm), change
        with own_process(write, str(lake), 5) as process:
            assert process.result() == ""
        assert contents(lake) == calm, change
        # What is left over is what vacuum lists, and nothing else removes it.
        left = {name.removeprefix("viewings/") for name in files_below(lake) - named_files(lake)}
        let_be_old(lake)
        named = {name.removeprefix("viewings/") for name in named_files(lake)}
        assert {path for path, _ in Viewings(str(lake)).unnamed(named, ONE_DAY)} == left, change


@pytest.mark.parametrize("is_begun", BEGUN)
def test_a_disk_that_is_full_from_any_change_of_a_file_on_is_told(tmp_path: Path, *, is_begun: bool) -> None:
    lake = tmp_path / "lake"
    before, changes, calm = prepare(lake, is_begun=is_begun)
    for change in changes:
        before.restore()
        old = contents(lake)
        with watched_process({"lake": lake}, change, errno.ENOSPC, write, str(lake), 5) as (process, watched):
            said = process.result()
            assert watched.was_struck
        found = contents(lake)
        if said:
            assert "the disk is full" in said, change
            assert "free space there" in said, change
            assert found in (old, {"viewings": []}), change
        else:  # nothing that needs room came after it
            assert found == calm, change
        with own_process(write, str(lake), 5) as process:
            assert process.result() == ""
        assert contents(lake) == calm, change


def test_a_file_that_is_written_again_is_on_disk_before_it_replaces_the_one_that_is_there(
    tmp_path: Path,
) -> None:
    """A crash of the machine just then must not leave less than an older version has."""
    lake = tmp_path / "lake"
    _, _, calm = prepare(lake, is_begun=False)
    with watched_process({"lake": lake}, None, 0, write, str(lake), 5) as (process, watched):
        assert process.result() == ""
    assert contents(lake) == calm
    for day in DAYS:
        folder = f"lake/viewings/day={day}"
        changes = [change.what for change in watched.changes if folder in change.what]
        (replaced,) = [at for at, what in enumerate(changes) if what.startswith("rename")]
        assert f"fsync {folder}/*.part" in changes[:replaced]
        assert f"fsync {folder}" in changes[replaced:]

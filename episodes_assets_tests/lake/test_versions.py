"""Versions of a table: what they hold stays, whoever else writes, and no other is taken for one."""

import itertools
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from episodes_assets.errors import (
    AccessDenied,
    BadSetting,
    LakeMissing,
    LakeReplaced,
    WrongEnvironment,
)
from episodes_assets.lake import tables
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.upkeep import missing_of, versions_since
from episodes_assets.lake.versions import DIGEST, PinnedVersion
from episodes_assets.lake.viewings import Viewings
from episodes_assets_tests.support.other_user import do_as, needs_root, other_user
from episodes_assets_tests.support.small_lakes import FIRST, ONE_DAY, SCHEMA, read, rows_of, take

pytestmark = pytest.mark.process


def test_versions_stay_readable(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    first = take(lake, rows_of(FIRST, (1, 10)), days=[FIRST])
    second = take(lake, rows_of(FIRST, (1, 10), (1, 20)), days=[FIRST], reason="one came later")
    (before,), (after,) = (read(Viewings(str(tmp_path)), each, {1: FIRST}, FIRST) for each in (first, second))
    assert (before.num_rows, after.num_rows) == (1, 2)
    assert (
        take(lake, rows_of(FIRST, (1, 20), (1, 10)), days=[FIRST]) > second
    )  # other viewers in other seconds
    again = take(lake, rows_of(FIRST, (1, 10)), days=[FIRST])
    assert read(lake, again, {1: FIRST}, FIRST) == [before]
    assert take(lake, rows_of(FIRST, (1, 10)), days=[FIRST]) == again  # the same content is no new version
    with pytest.raises(LakeMissing, match=f"has no version 99, its newest is {again}"):
        lake.at(99)
    with pytest.raises(LakeMissing, match="it is empty"):
        Viewings(str(tmp_path / "elsewhere")).at(0)


def test_a_lake_of_another_environment_is_read_and_not_written(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    lake.verify_environment("production")  # nobody's yet
    assert lake.change_stamp("development", "staging") is False
    version = take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    with pytest.raises(WrongEnvironment, match="belongs to 'development', this process to 'production'"):
        lake.verify_environment("production")
    with pytest.raises(WrongEnvironment, match="EPISODES_LAKE_URL"):
        lake.commit(SCHEMA, lambda _: [], environment="production", facts={})
    with pytest.raises(WrongEnvironment):
        lake.change_stamp("production", "staging")
    assert lake.change_stamp("development", "staging", dry_run=True) is True
    lake.verify_environment("development")
    assert lake.change_stamp("development", "staging") is True
    lake.verify_environment("staging")
    assert read(Viewings(str(tmp_path)), version, {1: FIRST}, FIRST)[0].num_rows == 1
    newest = lake.newest()
    assert newest is not None
    assert list(newest.files) == [FIRST]


def _take_one(url: str, number: int) -> None:
    day = FIRST + number * ONE_DAY
    take(Viewings(url), rows_of(day, (number, 1)), days=[day])


@pytest.mark.slow
def test_of_many_who_write_at_once_none_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_take_one, args=(str(tmp_path), number)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * len(writers)
    newest = Viewings(str(tmp_path)).newest()
    assert newest is not None
    assert list(newest.files) == [FIRST + number * ONE_DAY for number in range(6)]


def test_who_was_overtaken_decides_again(tmp_path: Path) -> None:
    lake, other = Viewings(str(tmp_path)), Viewings(str(tmp_path))
    take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    mine = lake.write(FIRST, rows_of(FIRST, (2, 2)).to_reader()).file
    asked = []

    def choose(files: Any) -> list[LakeFile]:
        asked.append(dict(files))
        if len(asked) == 1:  # somebody commits after we have looked
            take(other, rows_of(FIRST, (3, 3)), days=[FIRST])
            return [mine]
        return []

    kept = lake.commit(SCHEMA, choose, environment="development", facts={})
    assert len(asked) == 2
    assert asked[0] != asked[1] == kept.files
    assert lake.episodes_of(kept.number, FIRST).tolist() == [3]


def test_the_lake_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "lake"
    lake = Viewings(str(home))
    take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    assert {path.stat().st_mode & 0o777 for path in (home, home / "viewings")} == {0o700}


@pytest.mark.process
@needs_root
def test_a_lake_that_this_user_may_not_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    take(Viewings(lake), rows_of(FIRST, (1, 1)), days=[FIRST])
    for folder in (*tmp_path.parents[:2], tmp_path):
        folder.chmod(0o711)
    with other_user("reader") as account, pytest.raises(AccessDenied, match="may not read or write there"):
        do_as(account, lambda: Viewings(lake).newest() is None)


def test_a_lake_in_the_place_of_another_is_told_by_its_content(tmp_path: Path) -> None:
    """Also by who has read the one before, and keeps what it has read of it."""
    lake = Viewings(str(tmp_path / "lake"))
    second = FIRST + ONE_DAY
    take(lake, rows_of(FIRST, (1, 10)), days=[FIRST])
    kept = lake.at(take(lake, rows_of(second, (1, 10)), days=[second]))
    assert lake.at(*kept.pinned) == kept
    shutil.move(tmp_path / "lake", tmp_path / "before")
    other = Viewings(str(tmp_path / "lake"))
    for number in range(3):
        take(other, rows_of(FIRST + number * ONE_DAY, (2, 20)), days=[FIRST + number * ONE_DAY])
    newest = lake.newest()
    assert newest is not None
    assert newest.files == other.at(3).files  # none of them of the lake before
    for reader in (lake, Viewings(str(tmp_path / "lake"))):
        with pytest.raises(LakeReplaced, match="is not the one that the plan of today was made from"):
            reader.at(*kept.pinned, by="the plan of today")
    assert missing_of(lake, [kept.pinned, newest.pinned, PinnedVersion(9, None)]) == [
        kept.pinned,
        PinnedVersion(9, None),
    ]
    # What was read of another lake does not stand in the way of this one.
    shutil.rmtree(tmp_path / "lake")
    shutil.move(tmp_path / "before", tmp_path / "lake")
    assert lake.at(*kept.pinned) == kept
    with pytest.raises(LakeReplaced):
        lake.at(2, other.at(3).digest)


def test_the_same_content_is_the_same_whatever_the_lake(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        lake = Viewings(str(tmp_path / name))
        for number in range(2):
            day = FIRST + number * ONE_DAY
            take(lake, rows_of(day, (1, number)), days=[day])
        digests.append(lake.digests(range(9)))
        assert digests[-1] == {n: Viewings(str(tmp_path / name)).at(n).digest for n in range(3)}
    assert digests[0] == digests[1]
    assert lake.change_stamp("development", "staging")
    assert lake.digests([3]) == {3: digests[0][2]}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://bucket/[lake", "Cannot parse URI"),
        ("s3://[bucket", "Invalid IPv6 URL"),
        ("s3://bucket/a lake", "Cannot parse URI"),
        ("s3:/bucket", "Missing bucket name"),
        ("foo://bucket/lake", "Unrecognized filesystem type"),
        ("s3://bucket/lake?region=eu", "a query or a fragment"),
        ("file://elsewhere/lake", "on another host"),
    ],
)
def test_a_url_that_is_no_place_for_a_lake_is_refused(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "production")  # where any host is allowed
    with pytest.raises(BadSetting, match=f"(?s)EPISODES_LAKE_URL = .* cannot hold a lake .*{reason}"):
        Viewings(url).newest()


def _taken_days(lake: Viewings, count: int) -> None:
    for number in range(count):
        _take_one(lake.lake_url, number)


def test_commits_that_land_meanwhile_shift_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Viewings(str(tmp_path))
    _taken_days(lake, 3)
    pinned = [lake.at(number).pinned for number in range(4)]
    commits = lake.commits()
    assert [(each.number, each.facts.get(DIGEST)) for each in commits[1:]] == pinned[1:]
    find = lake._find
    later = itertools.count(3)

    def find_and_be_overtaken() -> Any:
        found = find()
        _take_one(lake.lake_url, next(later))
        return found

    monkeypatch.setattr(lake, "_find", find_and_be_overtaken)
    assert missing_of(lake, pinned) == []  # none is taken for one of another lake
    assert lake.commits()[: len(commits)] == commits
    assert lake.commits(2)[:2] == commits[2:]
    assert [each.number for each in lake.commits()] == list(range(next(later)))


def test_an_entry_that_says_nothing_shifts_no_number(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    _taken_days(lake, 4)
    commits = lake.commits()
    (tmp_path / "viewings" / "_delta_log" / f"{2:020}.json").write_bytes(b"")
    assert Viewings(str(tmp_path)).commits() == commits[:2] + commits[3:]


def test_a_version_without_files_of_its_own_has_not_the_content_before_a_lost_entry(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    _taken_days(lake, 3)
    assert lake.change_stamp("development", "staging")
    digests = lake.digests(range(5))
    assert digests[2] != digests[3] == digests[4]
    DeltaTable(str(tmp_path / "viewings")).create_checkpoint()
    (tmp_path / "viewings" / "_delta_log" / f"{3:020}.json").unlink()
    assert Viewings(str(tmp_path)).digests([2, 4]) == {2: digests[2], 4: digests[4]}


def test_a_version_whose_entry_is_lost_is_recent_as_well(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    _taken_days(lake, 4)
    moment = lake.commits()[2].at
    recent = versions_since(lake, moment)
    assert recent == [1, 2, 3, 4]
    DeltaTable(str(tmp_path / "viewings")).create_checkpoint()
    for lost in (2, 4):
        (tmp_path / "viewings" / "_delta_log" / f"{lost:020}.json").unlink()
    assert versions_since(Viewings(str(tmp_path)), moment) == recent


def test_a_log_whose_older_entries_were_cleaned_up_is_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Viewings(str(tmp_path))
    _taken_days(lake, 9)
    commits, digests = lake.commits(), lake.digests(range(10))
    DeltaTable(str(tmp_path / "viewings")).create_checkpoint()
    for number in range(8):
        (tmp_path / "viewings" / "_delta_log" / f"{number:020}.json").unlink()
    asked: list[int] = []
    read_entry = LakeTable._read_entry

    def counting(table: LakeTable, number: int) -> bytes | None:
        asked.append(number)
        return read_entry(table, number)

    monkeypatch.setattr(LakeTable, "_read_entry", counting)
    monkeypatch.setattr(tables, "_ENTRIES_READ", 3)
    lake = Viewings(str(tmp_path))
    assert lake.commits() == commits[8:]
    assert lake.digests([8, 9]) == {number: digests[number] for number in (8, 9)}
    assert min(asked) == 4  # the first ones that are all gone; of a long log, the others are many

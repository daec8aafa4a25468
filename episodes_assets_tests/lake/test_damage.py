"""Files and logs that are damaged are refused by name, whatever Arrow and Delta make of them."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from deltalake import DeltaTable

from episodes_assets.errors import (
    LakeDamaged,
    LakeMissing,
)
from episodes_assets.lake import day_file, upkeep
from episodes_assets.lake.viewings import Viewings
from episodes_assets_tests.support.small_lakes import FIRST, ONE_DAY, read, rows_of, take


@pytest.mark.parametrize("damage", ["removed", "cut", "changed", "replaced"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    lake = Viewings(str(tmp_path))
    version = take(lake, rows_of(FIRST, *((epid, epid) for epid in range(2_000))), days=[FIRST])
    file = lake.at(version).files[FIRST]
    path = tmp_path / "viewings" / file.path
    content = path.read_bytes()
    assert lake.is_whole(file)
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "changed":
        path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    else:
        path.write_bytes(b"x" * len(content))
    reader = Viewings(str(tmp_path))
    with pytest.raises(LakeDamaged, match=f"{file.path} (is gone|was cut or changed|was changed)"):
        read(reader, version, dict.fromkeys(range(2_000), FIRST), FIRST)
    if damage == "removed":
        with pytest.raises(LakeDamaged, match="is gone"):
            reader.is_whole(file)
    else:
        assert not reader.is_whole(file)


def test_a_file_that_vanishes_after_it_was_read_once_is_refused(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    version = take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    read(lake, version, {1: FIRST}, FIRST)
    (tmp_path / "viewings" / lake.at(version).files[FIRST].path).unlink()
    with pytest.raises(LakeDamaged, match="is gone"):
        read(lake, version, {1: FIRST}, FIRST)


def test_a_log_that_is_damaged_is_told(tmp_path: Path) -> None:
    take(Viewings(str(tmp_path)), rows_of(FIRST, (1, 1)), days=[FIRST])
    (tmp_path / "viewings" / "_delta_log" / f"{1:020}.json").write_text("{")
    with pytest.raises(LakeDamaged, match="viewings cannot be read"):
        Viewings(str(tmp_path)).newest()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
def test_an_entry_of_the_log_that_is_damaged_is_told(tmp_path: Path, number: int, damage: str) -> None:
    lake = Viewings(str(tmp_path))
    for count in (1, 2):
        last = take(lake, rows_of(FIRST, *((1, second) for second in range(count))), days=[FIRST])
    entry = tmp_path / "viewings" / "_delta_log" / f"{number:020}.json"
    content = entry.read_bytes()
    if damage == "removed":
        entry.unlink()
    else:
        entry.write_bytes(content[: len(content) * 2 // 3] if damage == "cut" else b"x" * len(content))
    with pytest.raises((LakeDamaged, LakeMissing), match="viewings"):
        Viewings(str(tmp_path)).at(last)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"day":"2018-03-01"', '"day":"2018-03-02"'),  # another day's
        ('"remove":{"path":"day=2018-03-01/', '"remove":{"path":"day=2018-03-01/1'),  # two of a day
        ('"stats"', '"state"'),  # of unknown many
    ],
)
def test_a_log_that_delta_reads_and_that_does_not_add_up_is_refused(
    tmp_path: Path, old: str, new: str
) -> None:
    lake = Viewings(str(tmp_path))
    for count in (1, 2):
        take(lake, rows_of(FIRST, *((1, second) for second in range(count))), days=[FIRST])
    entry = tmp_path / "viewings" / "_delta_log" / f"{2:020}.json"
    text = entry.read_text(encoding="utf-8")
    assert old in text
    entry.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LakeDamaged, match=r"what its log says of 2018-03-0[12] in version 2 does not add up"):
        Viewings(str(tmp_path)).newest()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("old", "new"), [(r"(?s).*", ""), ('{"add"', '{"adc"'), (r'(?s)(.*)\n\{"add.*', r"\1")]
)
def test_a_log_that_has_lost_what_it_added_is_refused(
    tmp_path: Path, number: int, old: str, new: str
) -> None:
    """Delta reads it without a word: the day is as it was before, or there is none."""
    lake = Viewings(str(tmp_path))
    for count in (1, 2):
        day = FIRST + (count % 2) * ONE_DAY
        take(lake, rows_of(day, *((1, second) for second in range(count))), days=[day])
    entry = tmp_path / "viewings" / "_delta_log" / f"{number:020}.json"
    text = entry.read_text(encoding="utf-8")
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    entry.write_text(changed, encoding="utf-8")
    with pytest.raises(LakeDamaged, match="version 2 is not what its log's entry says that it is"):
        Viewings(str(tmp_path)).newest()


@pytest.mark.parametrize("name", [f"{3:020}.checkpoint.parquet", "_last_checkpoint"])
@pytest.mark.parametrize("content", [b"", b"x" * 5_000])
def test_a_checkpoint_that_is_damaged_is_refused_or_done_without(
    tmp_path: Path, name: str, content: bytes
) -> None:
    lake = Viewings(str(tmp_path))
    for count in (1, 2, 3, 4):
        take(lake, rows_of(FIRST, *((1, second) for second in range(count))), days=[FIRST])
        if count == 3:
            DeltaTable(str(tmp_path / "viewings")).create_checkpoint()
    newest = Viewings(str(tmp_path)).newest()
    (tmp_path / "viewings" / "_delta_log" / name).write_bytes(content)
    try:
        assert Viewings(str(tmp_path)).newest() == newest
    except LakeDamaged as error:
        assert str(tmp_path / "viewings") in str(error)  # noqa: PT017  both are right


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", [0x01, *(pytest.param(each, marks=pytest.mark.slow) for each in (0x80, 0xFF))]
)
def test_a_byte_that_differs_is_refused_or_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: int
) -> None:
    """Whichever of a file: of a page's header or data, or of the end, which says where pages are."""
    monkeypatch.setattr(day_file, "ROW_GROUP_ROWS", 20)
    lake = Viewings(str(tmp_path))
    version = take(lake, rows_of(FIRST, *((epid, epid) for epid in range(30))), days=[FIRST])
    wanted = dict.fromkeys(range(5, 28), FIRST)
    taken = read(lake, version, wanted, FIRST)
    path = tmp_path / "viewings" / lake.at(version).files[FIRST].path
    content = path.read_bytes()
    refused = 0
    for at, byte in enumerate(content):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte ^ other]))
        reader = Viewings(str(tmp_path))
        monkeypatch.setattr(reader, "_versions", lake._versions)  # the log is read once
        try:
            assert read(reader, version, wanted, FIRST) == taken, at
        except LakeDamaged:
            refused += 1
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))
    assert refused > 0.5 * len(content)  # pages of columns that are not read are none of them


def test_a_page_that_is_passed_over_is_refused_in_batches_too(tmp_path: Path) -> None:
    """Arrow passes over a page of whose header a byte differs, and has the rows of the others."""
    lake = Viewings(str(tmp_path))
    version = take(lake, rows_of(FIRST, *((epid, epid) for epid in range(30))), days=[FIRST])
    file = lake.at(version).files[FIRST]
    path = tmp_path / "viewings" / file.path
    content = path.read_bytes()
    for at, byte in enumerate(content):
        path.write_bytes(content[:at] + bytes([byte ^ 1]) + content[at + 1 :])
        with suppress(LakeDamaged), lake.open(file) as opened:
            assert sum(batch.num_rows for batch in opened.iter_batches(7)) == file.rows, at


def test_a_log_that_says_other_rows_than_a_file_has_is_told(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    take(lake, rows_of(FIRST, (1, 1), (2, 2)), days=[FIRST])
    entry = tmp_path / "viewings" / "_delta_log" / f"{1:020}.json"
    said = entry.read_text(encoding="utf-8")
    assert said.count('numRecords\\": 2') == 1
    entry.write_text(said.replace('numRecords\\": 2', 'numRecords\\": 3'), encoding="utf-8")
    found = Viewings(str(tmp_path))
    newest = found.newest()
    assert newest is not None
    ((_, fault),) = upkeep.verify(found, list(newest.files.values()))
    assert fault == "has 2 rows, but 3 by the table's log"

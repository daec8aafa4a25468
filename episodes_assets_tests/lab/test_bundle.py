"""A bundle is whole or says what is wrong with it, and one that was begun is gone on with."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from episodes_assets.errors import AlreadyRunning, BadLab, BundleDamaged, BundleIncomplete
from episodes_assets.lab import bundle as bundles
from episodes_assets.lab.bundle import (
    DATABASES,
    TOO_LARGE,
    Bundle,
    BundleWriter,
    begin_bundle,
    open_bundle,
)
from episodes_assets.lab.manifest import FORMAT, KEY, LOCK, MANIFEST, TAKING
from episodes_assets.lab.pseudonyms import KEY_BYTES

REQUEST = {"days": ["2018-03-01"]}
ROWS = pa.table({"epid": [1, 2, 3], "title": ["a", "b", None]})


def begin(folder: Path, **said: object) -> BundleWriter:
    with begin_bundle(folder, REQUEST, lambda: said) as writer:
        assert isinstance(writer, BundleWriter)
        return writer


def whole(folder: Path) -> Bundle:
    writer = begin(folder)
    writer.write_table("ledger/2018-03-01/jobs.parquet", ROWS)
    writer.write_table("state/tracked_days.parquet", ROWS.slice(1))
    return writer.finish({"taken_at": "now"})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = whole(tmp_path / "bundle")
    found = open_bundle(tmp_path / "bundle")
    assert found.manifest == made.manifest
    assert found.read("ledger/2018-03-01/jobs.parquet") == ROWS
    assert [fault for _, _, fault in found.find_faults()] == ["", ""]
    names = {str(path.relative_to(found.folder)) for path in found.folder.rglob("*") if path.is_file()}
    assert names == {MANIFEST, *found.files}
    assert all(path.stat().st_mode & 0o077 == 0 for path in [found.folder, *found.folder.rglob("*")])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [(cut, "was cut or changed"), (flip, "was changed"), (Path.unlink, "is gone")],
)
def test_a_file_that_is_damaged_is_named(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    bundle = whole(tmp_path)
    damage(tmp_path / "state" / "tracked_days.parquet")
    faults = {path: fault for path, _, fault in open_bundle(tmp_path).find_faults()}
    assert faults == {"ledger/2018-03-01/jobs.parquet": "", "state/tracked_days.parquet": says}
    if says != "was changed":
        with pytest.raises(BundleDamaged, match=r"tracked_days.parquet (is gone|was cut)"):
            bundle.read("state/tracked_days.parquet")


@pytest.mark.parametrize(("old", "new"), [('"now"', '"then"'), ('"rows": 3', '"rows": 4'), ("{", "")])
def test_a_manifest_that_was_changed_is_refused(tmp_path: Path, old: str, new: str) -> None:
    whole(tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(BundleDamaged, match=r"manifest.json was changed"):
        open_bundle(tmp_path)


def test_a_bundle_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    whole(tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(BadLab, match="has format 99, this release reads it up to 1: upgrade"):
        open_bundle(tmp_path)


def test_where_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BadLab, match="there is no bundle in"):
        open_bundle(tmp_path)
    with pytest.raises(BadLab, match="there is no bundle in"):
        open_bundle(tmp_path / "missing")
    begin(tmp_path)
    with pytest.raises(BundleIncomplete, match="it resumes"):
        open_bundle(tmp_path)


def test_folders_that_cannot_hold_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    whole(tmp_path / "whole")
    for name, says in (
        ("file", "is not a folder"),
        ("full", "is not empty"),
        ("whole", "has a complete bundle already"),
    ):
        with pytest.raises(BadLab, match=says):
            begin(tmp_path / name)


def test_one_that_was_begun_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    first = begin(folder, taken_at="then")
    key = first.key()
    first.write_table("ledger/a.parquet", ROWS)
    first.note(databases=True)
    (folder / "ledger" / "b.parquet.part").touch()
    second = begin(folder, taken_at="later")
    assert second.key() == key
    assert second.record["taken_at"] == "then"
    assert second.record["databases"] is True
    assert list(second.files) == ["ledger/a.parquet"]
    assert not list(folder.rglob("*.part"))


def test_a_file_that_was_damaged_meanwhile_is_written_again(tmp_path: Path) -> None:
    begin(tmp_path).write_table("ledger/a.parquet", ROWS)
    flip(tmp_path / "ledger" / "a.parquet")
    assert begin(tmp_path).files == {}


def refused(folder: Path, **facts: object) -> None:
    """Something that is begun, and refused."""
    with suppress(BadLab), begin_bundle(folder, REQUEST, dict) as writer:
        assert isinstance(writer, BundleWriter)
        writer.write_table("ledger/a.parquet", ROWS)
        writer.note(**facts)
        raise BadLab("no such series")


def test_a_folder_that_was_made_for_what_is_refused_is_removed(tmp_path: Path) -> None:
    refused(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    refused(tmp_path / "worth", **{DATABASES: True})
    assert (tmp_path / "worth" / TAKING).exists()
    (tmp_path / "mine").mkdir()
    refused(tmp_path / "mine")
    assert (tmp_path / "mine" / TAKING).exists()


OTHER = {"days": ["2018-03-02"]}


@pytest.mark.parametrize("facts", [{}, {DATABASES: True, TOO_LARGE: True}])
def test_one_of_which_nothing_is_to_be_finished_gives_way_to_another_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, bool]
) -> None:
    first = begin(tmp_path)
    key = first.key()
    first.write_table("ledger/2018-03-01/jobs.parquet", ROWS)
    first.write_table("sample.parquet", ROWS)
    first.note(**facts)
    opened = (tmp_path / KEY).open()
    monkeypatch.setattr(bundles, "new_key", lambda: b"another" + bytes(KEY_BYTES - 7))
    with begin_bundle(tmp_path, OTHER, lambda: {"taken_at": "later"}) as second:
        assert isinstance(second, BundleWriter)
        assert second.key() != key
        assert opened.read() == "0" * len(key.hex())
        assert second.record == {"format": FORMAT, "request": OTHER, "taken_at": "later"}
        assert second.files == {}
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {TAKING, KEY, LOCK}


def test_one_that_can_be_finished_does_not_give_way(tmp_path: Path) -> None:
    begin(tmp_path).note(**{DATABASES: True})
    with (
        pytest.raises(BadLab, match="was begun with other options"),
        begin_bundle(tmp_path, OTHER, dict),
    ):
        pass


def test_one_that_was_too_large_is_finished_with_the_same_request(tmp_path: Path) -> None:
    first = begin(tmp_path)
    first.write_table("ledger/a.parquet", ROWS)
    first.note(**{DATABASES: True, TOO_LARGE: True})
    second = begin(tmp_path)
    second.write_table("ledger/b.parquet", ROWS)
    assert list(second.files) == ["ledger/a.parquet", "ledger/b.parquet"]
    with pytest.raises(BadLab, match="was begun with other options"), begin_bundle(tmp_path, OTHER, dict):
        pass


def test_one_that_was_being_begun_anew_goes_on(tmp_path: Path) -> None:
    first = begin(tmp_path)
    first.write_table("ledger/a.parquet", ROWS)
    with begin_bundle(tmp_path, OTHER, dict):
        pass
    # As if it had been killed before the second key was written, and before all of the first was removed.
    (tmp_path / KEY).unlink()
    (tmp_path / "ledger" / "a.parquet").touch()
    with begin_bundle(tmp_path, OTHER, dict) as again:
        assert isinstance(again, BundleWriter)
        assert len(again.key()) == KEY_BYTES
    assert not (tmp_path / "ledger" / "a.parquet").exists()


def test_one_that_ended_with_its_manifest_is_whole(tmp_path: Path) -> None:
    writer = begin(tmp_path)
    writer.write_table("ledger/a.parquet", ROWS)
    taking = (tmp_path / TAKING).read_text()
    writer.finish({})
    (tmp_path / TAKING).write_text(taking)
    with begin_bundle(tmp_path, REQUEST, dict) as found:
        assert isinstance(found, Bundle)
    assert not (tmp_path / TAKING).exists()


def test_two_do_not_take_into_one_folder(tmp_path: Path) -> None:
    with (
        begin_bundle(tmp_path, REQUEST, dict),
        pytest.raises(AlreadyRunning),
        begin_bundle(tmp_path, REQUEST, dict),
    ):
        pass


def test_the_key_is_overwritten_and_removed(tmp_path: Path) -> None:
    writer = begin(tmp_path)
    key = writer.key().hex()
    opened = (tmp_path / KEY).open()
    writer.delete_key()
    writer.delete_key()
    assert not (tmp_path / KEY).exists()
    assert opened.read() == "0" * len(key)
    with pytest.raises(BundleDamaged, match=r"the key of the bundle in .* is gone"):
        writer.key()

"""What is read of one episode is what the whole files have of it, and what is gone is said to be gone."""

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from episodes_assets.explanation.records import DropRecord, Unknown
from episodes_assets.lake import episode, tables
from episodes_assets.lake.day_file import ROW_GROUP_ROWS, CheckedFile, LakeFile
from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.episode import EpisodeInLake
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.lake.viewings import Viewings
from episodes_assets.planning.drop import AS_FOUND, QUARANTINED, validate_drop
from episodes_assets_tests.support import lake_drops
from episodes_assets_tests.support.drops import drop
from episodes_assets_tests.support.small_lakes import FIRST, ONE_DAY, rows_of, take


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def taken(drops: Drops, day: dt.date, *parts: pd.DataFrame, reason: str = "") -> Drop:
    """Take a day's drop in some parts, each a row group of its own."""
    with drops.writer(day, reason=reason) as writer:
        for part in parts:
            writer.add(validate_drop(part))
        made = writer.finish(np.array([], np.int64), sum(map(len, parts)))
    drops.commit([made], "development")
    return made


def used(url: str, epid: int, day: dt.date = FIRST, snapshot_id: str | None = None) -> DropRecord:
    found = EpisodeInLake(url, epid).read_drops(day, snapshot_id).used
    assert isinstance(found, DropRecord)
    return found


def test_rows_of_one_episode_are_found_in_whichever_row_group_they_lie(url: str) -> None:
    parts = [drop(*({"epid": epid, "title": f"t{epid}"} for epid in ids)) for ids in ((1, 3), (5,), (8, 9))]
    made = taken(Drops(url), FIRST, *parts)
    for epid in range(11):
        found = used(url, epid)
        assert not isinstance(found.accepted, Unknown)
        expected = [f"t{epid}"] if epid in (1, 3, 5, 8, 9) else []
        assert [row.title for row in found.accepted] == expected
        assert found.refused == []
    assert (found.snapshot_id, found.version, found.rows) == (made.snapshot_id, 1, 5)


def test_what_a_row_says_is_what_it_said(url: str) -> None:
    names = ["algorithm_id", "premier_date", "start_date", "series", "season", "episode", "title"]
    drops = Drops(url)
    made = taken(drops, FIRST, drop({"epid": 2**62, "season": None, "premier_date": None, "algorithm_id": 1}))
    (row,) = used(url, 2**62).accepted  # type: ignore[misc]
    (whole,) = lake_drops.read(drops, made)[names].astype("object").to_dict("records")
    assert {name: getattr(row, name) for name in names} == {
        name: None if pd.isna(value) else value.date() if isinstance(value, pd.Timestamp) else value
        for name, value in whole.items()
    }


def test_refused_rows_have_their_rules_and_those_that_look_like_it_are_marked(url: str) -> None:
    found = ["007", "7.0", " 7 ", "77", "seven", "1e400", "-7"]
    unreadable = drop(*({"epid": None} for _ in found)).assign(
        **{AS_FOUND: [json.dumps({"epid": text}) for text in found]}
    )
    twins = drop({"epid": 7}, {"epid": 7}, {"epid": 8, "algorithm_id": 99})
    both = pd.concat([twins.assign(**{AS_FOUND: None}), unreadable], ignore_index=True)
    taken(Drops(url), FIRST, both.astype({AS_FOUND: "str"}))
    seven = used(url, 7)
    assert not isinstance(seven.refused, Unknown)
    assert (seven.refused[0].rules, seven.refused[0].is_certain) == (("duplicate",), True)
    assert sorted(
        json.loads(each.as_found)["epid"] for each in seven.refused if not each.is_certain
    ) == sorted(["007", "7.0", " 7 "])
    (eight,) = used(url, 8).refused  # type: ignore[misc]
    assert (eight.rules, eight.row.algorithm_id) == (("algorithm_id_unknown",), 99)


@pytest.mark.parametrize(
    ("days", "shown"),
    [
        (-719_163, "0001-12-31 BC"),
        (-719_162, dt.date.min),
        (2_932_896, dt.date.max),
        (2_932_897, "10000-01-01"),
        (6_651_126, "20180-03-01"),
        (-2_440_588, "4714-11-24 BC"),
        (2_145_042_905, "5874897-12-31"),
        (None, None),
    ],
)
def test_a_date_that_python_lacks_is_shown_as_text(
    url: str, days: int | None, shown: dt.date | str | None
) -> None:
    """Validation refuses it as implausible."""
    refuse(url, refused(1, epid=[7], premier_date=[days], start_date=[17_591]))
    (found,) = used(url, 7).refused  # type: ignore[misc]
    assert (found.row.premier_date, found.row.start_date, found.rules) == (shown, FIRST, ("a rule",))


def refused(count: int, **columns: list[Any]) -> pa.Table:
    """Refused rows as they are stored, with nothing but some of the columns and a rule."""
    given = {**columns, "reasons": ["a rule"] * count}
    values = {name: given.get(name, [None] * count) for name in QUARANTINED.names}
    return pa.table([pa.array(values[each.name], each.type) for each in QUARANTINED], schema=QUARANTINED)


def refuse(url: str, *groups: pa.Table) -> None:
    """Take a drop of which all rows are refused, in some row groups."""
    drops = Drops(url)
    with drops.writer(FIRST) as writer:
        for group in groups:
            writer.quarantine.write_group(group)
        made = writer.finish(np.array([], np.int64), sum(group.num_rows for group in groups))
    drops.commit([made], "development")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many rows of which columns were decoded, and how many values were looked at one by one."""
    found: Counter[str] = Counter()
    batches, groups, may_be = CheckedFile.iter_batches, CheckedFile._checked, episode._may_be

    def iter_batches(opened: CheckedFile, *asked: Any, **named: Any) -> Iterator[pa.RecordBatch]:
        for batch in batches(opened, *asked, **named):
            found[" ".join(sorted(batch.schema.names))] += batch.num_rows
            yield batch

    def checked(opened: CheckedFile, numbers: list[int], table: pa.Table) -> pa.Table:
        found[" ".join(sorted(table.schema.names))] += table.num_rows
        return groups(opened, numbers, table)

    def looking(as_found: str, epid: int) -> bool:
        found["looked at"] += 1
        return may_be(as_found, epid)

    monkeypatch.setattr(CheckedFile, "iter_batches", iter_batches)
    monkeypatch.setattr(CheckedFile, "_checked", checked)
    monkeypatch.setattr(episode, "_may_be", looking)
    return found


def test_of_a_drop_without_an_id_that_can_be_read_a_part_is_searched(
    url: str, decoded: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ids are text, and nearly all of them have the digit somewhere."""
    monkeypatch.setattr(episode, "_MOST_SEARCHED", 2 * ROW_GROUP_ROWS)
    texts = [json.dumps({"epid": f"EP-{number:07}"}) for number in range(3 * ROW_GROUP_ROWS)]
    refuse(url, refused(len(texts), as_found=texts), refused(5, as_found=texts[:5]))
    found = used(url, 1)
    assert (found.refused, found.more_refused) == ([], ROW_GROUP_ROWS + 5)
    assert dict(decoded) == {"as_found epid": 2 * ROW_GROUP_ROWS}


def test_of_many_rows_that_look_like_the_id_ten_are_shown(url: str, decoded: Counter[str]) -> None:
    other, own = json.dumps({"epid": "EP-0000007"}), json.dumps({"epid": "007"})
    texts = [other] * ROW_GROUP_ROWS + [own] * 12 + [other] * ROW_GROUP_ROWS
    groups = refused(8, as_found=[own] + [other] * 7), refused(len(texts), as_found=texts), refused(9)
    refuse(url, *groups)
    found = used(url, 7)
    assert not isinstance(found.refused, Unknown)
    assert [(each.as_found, each.is_certain) for each in found.refused] == [(own, False)] * 10
    # Three that were found and are not shown, and what comes after them.
    assert found.more_refused == 3 + (len(texts) - 2 * ROW_GROUP_ROWS) + 9
    assert (decoded["looked at"], decoded["as_found epid"]) == (13, 8 + 2 * ROW_GROUP_ROWS)
    assert decoded[" ".join(sorted(QUARANTINED.names))] == 8 + len(texts)


def test_of_a_drop_with_one_id_in_all_rows_some_of_each_algorithm_are_shown(
    url: str, decoded: Counter[str]
) -> None:
    count = 2 * ROW_GROUP_ROWS
    algorithms = [0] * (ROW_GROUP_ROWS // 2) + [1] * 10 + [None] * 5 + [*range(100, 200)]
    algorithms += [0] * (count - len(algorithms))
    refuse(url, refused(count, epid=[7] * count, algorithm_id=algorithms))
    found = used(url, 7)
    assert not isinstance(found.refused, Unknown)
    of = [each.row.algorithm_id for each in found.refused]
    assert of == [0] * 10 + [1] * 10 + [None] * 5 + [*range(100, 175)]
    assert found.more_refused == count - 100
    assert set(decoded.values()) == {count}
    assert used(url, 8).refused == []


def test_the_drop_that_is_asked_for_and_the_one_that_is_the_days_now(url: str) -> None:
    drops = Drops(url)
    first = taken(drops, FIRST, drop({"epid": 1}))
    taken(drops, FIRST - ONE_DAY, drop({"epid": 4}))
    second = taken(drops, FIRST, drop({"epid": 2}), reason="it was wrong")
    found = EpisodeInLake(url, 1).read_drops(FIRST, first.snapshot_id)
    assert isinstance(found.used, DropRecord)
    assert (found.used.version, len(found.used.accepted)) == (1, 1)  # type: ignore[arg-type]
    assert found.newest is not None
    assert (found.newest.snapshot_id, found.newest.version) == (second.snapshot_id, 3)
    assert found.newest.reason == "it was wrong"
    assert EpisodeInLake(url, 4).read_drops(FIRST, None).last_seen == FIRST - ONE_DAY
    assert EpisodeInLake(url, 5).read_drops(FIRST, None).last_seen is None
    unknown = EpisodeInLake(url, 1).read_drops(FIRST, "another").used
    assert unknown == Unknown(f"the lake has no drop another of {FIRST}")
    assert EpisodeInLake(url, 1).read_drops(FIRST + ONE_DAY, None).used is None


def test_the_log_is_read_back_to_the_drop_and_no_further(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drops = Drops(url)
    days = [FIRST + number * ONE_DAY for number in range(6)]
    made = [taken(drops, day, drop({"epid": 1})) for day in days]
    entries: set[int] = set()
    whole = LakeTable._read_entry

    def counting(table: LakeTable, number: int) -> bytes | None:
        entries.add(number)
        return whole(table, number)

    monkeypatch.setattr(LakeTable, "_read_entry", counting)
    monkeypatch.setattr(tables, "_ENTRIES_READ", 2)
    monkeypatch.delattr(DeltaTable, "history")  # it reads all of a log, or up to its end
    for number, expected in ((5, {5, 6}), (4, {5, 6}), (1, {1, 2, 3, 4, 5, 6}), (2, {3, 4, 5, 6})):
        entries.clear()
        found = used(url, 1, days[number], made[number].snapshot_id)
        assert (found.snapshot_id, found.version) == (made[number].snapshot_id, number + 1)
        assert entries == expected
        assert used(url, 1, days[number]) == found
    entries.clear()
    assert isinstance(EpisodeInLake(url, 1).read_drops(days[5], "another").used, Unknown)
    assert entries == {0, 1, 2, 3, 4, 5, 6}


def test_a_file_that_is_gone_or_changed_is_said_to_be(url: str) -> None:
    made = taken(Drops(url), FIRST, drop({"epid": 1}, {"epid": -1}))
    Path(url, "quarantine", made.quarantine.path).unlink()
    found = used(url, 1)
    assert isinstance(found.refused, Unknown)
    assert found.refused.why.endswith("is gone")
    assert not isinstance(found.accepted, Unknown)
    path = Path(url, "episodes", made.episodes.path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    changed = used(url, 1).accepted
    assert isinstance(changed, Unknown)
    assert "was changed" in changed.why


def test_viewings_are_counted_as_the_whole_file_has_them(url: str) -> None:
    rng = np.random.default_rng(1)
    epids = [int(each) for each in rng.integers(0, 60, 3 * ROW_GROUP_ROWS)]
    days = [FIRST, FIRST + ONE_DAY, FIRST + 2 * ONE_DAY]
    version = take(
        Viewings(url),
        rows_of(days[0], *((epid, 1) for epid in epids), (None, 1), (None, 2)),
        rows_of(days[1]),
        rows_of(days[2], (7, 1), (None, 1), (9, 1), (7, 2)),
        days=days,
    )
    pinned = PinnedVersion(version, None)
    for epid in (-1, 0, 7, 9, 30, 59, 60, 2**62):
        expected = {days[0]: epids.count(epid), days[2]: [7, 9, 7].count(epid)}
        assert EpisodeInLake(url, epid).count_viewings(pinned, FIRST, days[2]) == {
            day: count for day, count in expected.items() if count
        }
    seven = EpisodeInLake(url, 7)
    assert seven.count_viewings(pinned, days[1], days[2]) == {days[2]: 2}
    beyond = seven.count_viewings(pinned, FIRST, days[2] + ONE_DAY)
    assert beyond == Unknown(f"the lake has no viewings of 2018-03-04 in version {version}")
    another = seven.count_viewings(PinnedVersion(version, "x"), FIRST, days[2])
    assert isinstance(another, Unknown)
    assert "is not the one that the plan was made from" in another.why


@pytest.mark.slow
def test_no_file_is_opened_beyond_the_window_and_the_days_just_before(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [FIRST + number * ONE_DAY for number in range(40)]
    drops = Drops(url)
    for day in days:
        lake_drops.take(drops, 1, day=day)
    version = take(Viewings(url), *(rows_of(day, (1, 1)) for day in days), days=days)
    opened: list[str] = []
    whole = LakeTable.open

    def counting(table: LakeTable, file: LakeFile, *rest: Any) -> Any:
        opened.append(f"{table.name} {file.day}")
        return whole(table, file, *rest)

    monkeypatch.setattr(LakeTable, "open", counting)
    there, missing = EpisodeInLake(url, 1), EpisodeInLake(url, 5)
    assert there.read_drops(days[30], None).last_seen is None
    assert opened == [f"episodes {days[30]}", f"quarantine {days[30]}"]
    opened.clear()
    missing.read_drops(days[30], None)
    assert opened[2:] == [f"episodes {days[30] - number * ONE_DAY}" for number in range(1, 8)]
    opened.clear()
    there.count_viewings(PinnedVersion(version, None), days[20], days[30])
    assert sorted(opened) == [f"viewings {day}" for day in days[20:31]]

"""The accumulated state refuses gaps and another past, and costs what is new."""

import datetime as dt
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st

from episodes_assets.errors import StateGap
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results.copies import export_state, import_state
from episodes_assets.results.repairs import RepairDecision, read_repairs
from episodes_assets.results.state import (
    TrackedDay,
    read_tracked,
    record_day,
    state_before,
)
from episodes_assets_tests.support.system import System, day


@pytest.fixture
def connection(system: System) -> Iterator[Connection]:
    with connect(system.dsn(Purpose.RESULTS), autocommit=True) as opened:
        yield opened


def record(
    connection: Connection, of: dt.date, *epids: int, snapshot_id: str = "s", repair: str = ""
) -> tuple[TrackedDay, bool]:
    return record_day(
        connection,
        of,
        np.array(epids, dtype=np.int64),
        yesterday=state_before(connection, of),
        snapshot_id=snapshot_id,
        code_version="1",
        repair=RepairDecision(repair, "a test", "a run") if repair else None,
    )


def as_of(system: System, of: dt.date) -> list[int]:
    query = "SELECT epid FROM state.tracked_episodes WHERE tracked_on <= %s ORDER BY epid"
    return [epid for (epid,) in system.query("results", query, [of])]


def test_it_accumulates_and_remembers_every_day(system: System, connection: Connection) -> None:
    first, changed = record(connection, day(1), 3, 1)
    assert (first.origin, first.total, changed) == ("beginning", 2, True)
    second, _ = record(connection, day(2), 7)
    assert (second.origin, second.newly_tracked, second.total) == ("day", 1, 3)
    record(connection, day(3))
    assert as_of(system, day(1)) == [1, 3]
    assert as_of(system, day(3)) == [1, 3, 7]
    assert as_of(system, day(0)) == []


def test_recording_a_day_again_changes_nothing(system: System, connection: Connection) -> None:
    record(connection, day(1), 1)
    record(connection, day(2), 2)
    before = system.fingerprint()
    assert record(connection, day(1), 1)[1] is False
    assert record(connection, day(2), 2)[1] is False
    assert system.fingerprint() == before


def test_episodes_are_read_of_each_day_wherever_their_rows_lie(
    system: System, connection: Connection
) -> None:
    lowest, highest = -(2**63), 2**63 - 1
    record(connection, day(1), lowest, 1, 256)
    record(connection, day(2), 5, highest)
    # A row that is written anew lies behind all others.
    for epid in (lowest, 5):
        system.query(
            "results", "UPDATE state.tracked_episodes SET tracked_on = tracked_on WHERE epid = %s", [epid]
        )
    dsn = system.dsn(Purpose.RESULTS)
    tracked = read_tracked(dsn, state_before(connection, day(3)))
    wanted = np.array([lowest, 1, 2, 5, 256, highest])
    for until, found in ((day(0), []), (day(1), [lowest, 1, 256]), (day(2), [lowest, 1, 5, 256, highest])):
        assert wanted[tracked.as_of(until).contains(wanted)].tolist() == found
    assert not read_tracked(dsn, None).as_of(day(2)).contains(wanted).any()


def test_gaps_and_days_before_the_beginning_are_refused(connection: Connection) -> None:
    record(connection, day(5), 1)
    with pytest.raises(StateGap, match="before the beginning"):
        record(connection, day(4), 2)
    with pytest.raises(StateGap, match="from 2018-03-06 to 2018-03-07 first"):
        record(connection, day(8), 2)


def test_a_day_that_changes_stops_the_days_built_on_it_until_they_are_rebuilt(
    system: System, connection: Connection
) -> None:
    record(connection, day(1), 1)
    record(connection, day(2), 2)
    record(connection, day(3), 3)
    # Refreshed, the first day tracks 3 as well, which the third day had added.
    record(connection, day(1), 1, 3, snapshot_id="refreshed")
    with pytest.raises(StateGap, match="from 2018-03-02 on"):
        record(connection, day(4), 4)
    record(connection, day(2), 2)
    record(connection, day(3))
    record(connection, day(4), 4)
    assert as_of(system, day(1)) == [1, 3]
    assert as_of(system, day(4)) == [1, 2, 3, 4]


@hypothesis.given(
    changes=st.lists(st.tuples(st.integers(1, 3), st.frozensets(st.integers(1, 2))), min_size=2, max_size=6)
)
@hypothesis.settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_whatever_order_days_change_recording_all_of_them_gives_what_their_drops_say(
    system: System, connection: Connection, changes: list[tuple[int, frozenset[int]]]
) -> None:
    system.query("results", "TRUNCATE state.tracked_days, state.tracked_episodes")
    dsn, drops = system.dsn(Purpose.RESULTS), {1: frozenset[int](), 2: frozenset({1}), 3: frozenset({2})}

    def build(number: int) -> None:
        tracked = read_tracked(dsn, state_before(connection, day(number))).as_of(day(number - 1))
        wanted = np.array(sorted(drops[number]), dtype=np.int64)
        record(connection, day(number), *wanted[~tracked.contains(wanted)], snapshot_id=str(wanted))

    for number in drops:
        build(number)
    for number, wanted in changes:
        drops[number] = wanted
        with suppress(StateGap):
            build(number)
    expected: dict[int, dt.date] = {}
    for number, wanted in drops.items():
        build(number)
        expected = dict.fromkeys(wanted, day(number)) | expected
    found = system.query("results", "SELECT epid, tracked_on FROM state.tracked_episodes")
    assert dict(found) == expected
    assert state_before(connection, day(4)) is not None


@pytest.mark.parametrize("repair", ["", "to be sure"])
def test_a_day_that_changes_and_changes_back_lets_the_days_after_it_be_rebuilt(
    system: System, connection: Connection, repair: str
) -> None:
    """The ABA problem: by the checksums alone nothing has happened to the days that lost episodes to it."""
    record(connection, day(1), 1)
    for number in (2, 3, 4):
        record(connection, day(number), number)
    before = system.fingerprint()["tracked"]
    record(connection, day(1), 1, 3, snapshot_id="refreshed")
    record(connection, day(1), 1)
    assert record(connection, day(2), 2)[1] is False
    with pytest.raises(StateGap, match=r"2018-03-03 were built on another 2018-03-02: .* from 2018-03-03 on"):
        record(connection, day(4), 4)
    assert record(connection, day(3), 3, repair=repair)[1] is True
    assert record(connection, day(4), 4)[1] is False
    assert system.fingerprint()["tracked"] == before
    tracked = read_tracked(system.dsn(Purpose.RESULTS), state_before(connection, day(5))).as_of(day(4))
    assert tracked.contains(np.array([1, 2, 3, 4])).all()
    assert read_repairs(connection, day(3)) == []


def test_a_day_that_is_repaired_leaves_the_days_after_it_as_they_are(
    system: System, connection: Connection
) -> None:
    for number in (1, 2, 3):
        record(connection, day(number), number)
    before = system.fingerprint()["tracked"]
    system.query("results", "UPDATE state.tracked_episodes SET tracked_on = '2018-03-03' WHERE epid = 2")
    assert record(connection, day(2), 2, repair="why")[1] is True
    assert [each.what for each in read_repairs(connection, day(2))] == ["tracked episodes"]
    assert record(connection, day(3), 3)[1] is False
    record(connection, day(4), 4)
    assert system.fingerprint()["tracked"] == [*before, (4, day(4))]


def test_rows_changed_by_hand_are_noticed(system: System, connection: Connection) -> None:
    record(connection, day(1), 1, 2)
    system.query("results", "DELETE FROM state.tracked_episodes WHERE epid = 2")
    yesterday = state_before(connection, day(2))
    with pytest.raises(StateGap, match="`episodes run 2018-03-01 --repair --reason WHY`"):
        read_tracked(system.dsn(Purpose.RESULTS), yesterday)
    assert record(connection, day(1), 1, 2)[1] is False
    assert as_of(system, day(1)) == [1]
    assert record(connection, day(1), 1, 2, repair="why")[1] is True
    assert as_of(system, day(1)) == [1, 2]
    assert [each.what for each in read_repairs(connection, day(1))] == ["tracked episodes"]
    record(connection, day(2), 3)


@pytest.mark.parametrize(
    ("at", "added"),
    [(0, (1, 3)), (0, (1,)), (1, (1, 3)), (1, (1,))],
    ids=["before, more", "before, less", "between, more", "between, less"],
)
def test_a_past_that_another_run_corrects_meanwhile_is_no_damage(
    system: System, connection: Connection, monkeypatch: pytest.MonkeyPatch, at: int, added: tuple[int, ...]
) -> None:
    """Once the day is known on which to build: before the first or the second read of what was tracked."""
    record(connection, day(1), 1, 2)
    record(connection, day(2), 3)
    yesterday = state_before(connection, day(3))
    execute = adbc.Cursor.execute
    reads = iter(range(10))

    def racing(cursor: Any, operation: Any, *rest: Any, **options: Any) -> Any:
        if "FROM state.tracked_" in str(operation) and next(reads) == at:
            record(connection, day(1), *added, snapshot_id="corrected")
        return execute(cursor, operation, *rest, **options)

    monkeypatch.setattr(adbc.Cursor, "execute", racing)
    if at:  # all that is read is of one moment, and whoever builds on it looks again before it is recorded
        tracked = read_tracked(system.dsn(Purpose.RESULTS), yesterday)
        assert tracked.as_of(day(2)).contains(np.array([1, 2, 3])).all()
    else:
        with pytest.raises(StateGap, match="another run has changed the tracked episodes up to 2018-"):
            read_tracked(system.dsn(Purpose.RESULTS), yesterday)


def test_a_day_of_another_yesterday_or_drop_is_no_damage(system: System, connection: Connection) -> None:
    record(connection, day(1), 1, 2)
    record(connection, day(2), 3, 4)
    record(connection, day(1), 1, 2, 3, snapshot_id="newer")  # which the second day had before
    assert record(connection, day(2), 4, repair="why")[1] is True
    assert record(connection, day(2), 4, 5, snapshot_id="newer", repair="why")[1] is True
    assert as_of(system, day(2)) == [1, 2, 3, 4, 5]
    assert read_repairs(connection, day(2)) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE state.tracked_days SET previous_checksum = 'x' WHERE day = '2018-03-02'",
        "DELETE FROM state.tracked_days WHERE day = '2018-03-02'",
        "UPDATE state.tracked_days SET snapshot_id = 'x', total = total + 1 WHERE day = '2018-03-02'",
        (
            "UPDATE state.tracked_days SET snapshot_id = 'x' WHERE day = '2018-03-02';"
            "DELETE FROM state.tracked_episodes WHERE epid = 3"
        ),
    ],
)
def test_what_no_other_yesterday_or_drop_explains_is_damage(
    system: System, connection: Connection, damage: str
) -> None:
    for number in (1, 2, 3):
        record(connection, day(number), number + 1)
    before = system.fingerprint()["tracked"]
    system.query("results", damage)
    assert record(connection, day(2), 3, repair="why")[1] is True
    assert [each.what for each in read_repairs(connection, day(2))] == ["tracked episodes"]
    assert system.fingerprint()["tracked"] == before


def test_a_state_is_exported_as_its_manifests_describe_it(system: System, connection: Connection) -> None:
    dsn = system.dsn(Purpose.RESULTS)
    record(connection, day(1), 1, 9)
    record(connection, day(2), 5)
    exported = export_state(dsn, day(2))
    assert exported["epid"].tolist() == [1, 5, 9]
    assert [each.date() for each in exported["tracked_on"]] == [day(1), day(2), day(1)]
    assert export_state(dsn, day(1))["epid"].tolist() == [1, 9]
    with pytest.raises(StateGap, match="no tracked episodes as of 2018-03-03"):
        export_state(dsn, day(3))

    record(connection, day(1), 1, snapshot_id="refreshed")
    with pytest.raises(StateGap, match="of 2018-03-02 were built on another 2018-03-01: materialise"):
        export_state(dsn, day(2))
    assert export_state(dsn, day(1))["epid"].tolist() == [1]
    record(connection, day(2), 5)
    assert export_state(dsn, day(2))["epid"].tolist() == [1, 5]
    system.query("results", "DELETE FROM state.tracked_episodes WHERE epid = 1")
    with pytest.raises(StateGap, match="`episodes backfill 2018-03-01 2018-03-02 --repair --reason WHY`"):
        export_state(dsn, day(2))


def test_an_import_is_the_first_days_yesterday(system: System, connection: Connection) -> None:
    state = pd.DataFrame(
        {
            "epid": np.array([5, 4], dtype=np.int64),
            "tracked_on": pd.to_datetime(["2018-02-01", "2018-03-02"]),
        }
    )
    imported = import_state(connection, state, day(2), "1")
    assert (imported.origin, imported.total) == ("import", 2)
    with pytest.raises(StateGap, match="imported as of 2018-03-02"):
        record(connection, day(2), 1)
    recorded, _ = record(connection, day(3), 9)
    assert (recorded.origin, recorded.total) == ("day", 3)
    assert as_of(system, day(1)) == [5]
    exported = export_state(system.dsn(Purpose.RESULTS), day(2))
    assert exported["epid"].tolist() == [4, 5]
    with pytest.raises(StateGap, match="a tracked history already"):
        import_state(connection, state, day(2), "1")

"""What published episodes are called: as the last published day says, whatever was published when."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from episodes_assets.errors import LakeDamaged
from episodes_assets.lake.drops import Drops
from episodes_assets.planning.drop import validate_drop
from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision.init import provision
from episodes_assets.postgres.provision.schema import downgrade
from episodes_assets.results.publish import record_titles
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.drops import drop
from episodes_assets_tests.support.published import put_day, reach
from episodes_assets_tests.support.system import System, day


def take(drops: Drops, number: int, *parts: Sequence[dict[str, Any]]) -> None:
    """A day's drop with these rows, part by part."""
    with drops.writer(day(number)) as writer:
        for part in parts:
            writer.add(validate_drop(drop(*part)))
        taken = writer.finish(np.array([], dtype=np.int64), sum(map(len, parts)))
    drops.commit([taken], "development")


def publish(system: System, number: int, *epids: int) -> None:
    put_day(system, day(number), dict(zip(epids, reach(*epids), strict=True)))


def titles(system: System) -> list[tuple[int, str, int]]:
    """Id, title and number of the day that gave it."""
    found = system.query("results", "SELECT epid, title, day FROM published.episodes ORDER BY epid")
    return [(epid, title, (of - day(1)).days + 1) for epid, title, of in found]


def test_the_last_published_day_says_what_an_episode_is_called(
    system: System, results: Connection, drops: Drops
) -> None:
    take(drops, 1, [{"epid": 1, "title": "old"}, {"epid": 2, "title": "only"}])
    take(drops, 2, [{"epid": 1, "title": "new"}, {"epid": 4, "title": "not published"}])
    take(drops, 3, [{"epid": 2, "title": "later"}])
    publish(system, 1, 1, 2)
    publish(system, 2, 1, 3)
    publish(system, 3, 1)
    # No drop names 3, and that of the last day no published episode.
    expected = [(1, "new", 2), (2, "only", 1)]
    for order in itertools.permutations([1, 2, 3]):
        system.query("results", "TRUNCATE published.episodes")
        for number in order:
            record_titles(results, drops, [day(number)])
        assert titles(system) == expected, order
    system.query("results", "TRUNCATE published.episodes")
    record_titles(results, drops, [day(1), day(2), day(3)])
    assert titles(system) == expected


def test_recording_again_writes_nothing(system: System, results: Connection, drops: Drops) -> None:
    take(drops, 1, [{"epid": 1, "series": None, "title": None, "season": None}, {"epid": 2}])
    take(drops, 2, [{"epid": 1, "series": None, "title": None, "season": None}, {"epid": 2}])
    publish(system, 1, 1, 2)
    publish(system, 2, 1, 2)
    record_titles(results, drops, [day(2)])
    written = "SELECT xmin::text, ctid::text, * FROM published.episodes ORDER BY epid"
    before = system.query("results", written)
    record_titles(results, drops, [day(2)])
    record_titles(results, drops, [day(1), day(2)])
    record_titles(results, drops, [day(1)])
    assert system.query("results", written) == before
    assert before[0][2:] == (1, None, None, 1, None, day(2))


def test_a_drop_of_several_parts_and_of_several_rows_for_an_episode(
    system: System, results: Connection, drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("episodes_assets.results.publish._TITLES_AT_ONCE", 2)
    first = [{"epid": epid, "title": f"t{epid}"} for epid in (1, 2, 3)]
    second = [
        {"epid": epid, "algorithm_id": algorithm_id, "title": f"t{epid}"}
        for epid in (7, 8, 9)
        for algorithm_id in (0, 1, 2)
    ]
    take(drops, 1, first, second)
    publish(system, 1, 2, 7, 9, 10)
    record_titles(results, drops, [day(1)])
    assert titles(system) == [(2, "t2", 1), (7, "t7", 1), (9, "t9", 1)]


def test_days_without_rows_or_without_a_drop_name_nothing(
    system: System, results: Connection, drops: Drops
) -> None:
    take(drops, 1, [])
    publish(system, 1, 5)
    publish(system, 2, 5)
    record_titles(results, drops, [day(1), day(2), day(3)])
    assert titles(system) == []


def test_a_file_that_is_gone_is_named(system: System, results: Connection, drops: Drops) -> None:
    take(drops, 1, [{"epid": 5}])
    publish(system, 1, 5)
    for file in Path(drops.lake_url).glob("episodes/day=*/*.parquet"):
        file.unlink()
    with pytest.raises(LakeDamaged):
        record_titles(results, Drops(drops.lake_url), [day(1)])


def test_an_upgrade_keeps_what_is_published(system: System, server_home: Path) -> None:
    publish(system, 1, 5, 6)
    stored = system.query("results", "SELECT * FROM published.results ORDER BY epid")
    downgrade(Database.RESULTS, system.admin["results"], "results_0008")
    # Of an algorithm that was called so.
    system.query("results", "CREATE VIEW published.episodes AS SELECT epid FROM published.results")
    settings = load_settings(home=server_home, **{f"{purpose}_dsn": None for purpose in Purpose})
    provision(settings, Dsns(system.dsns.by_purpose, is_embedded=True), lambda _: None)
    assert system.query("results", "SELECT * FROM published.results ORDER BY epid") == stored
    assert titles(system) == []
    with psycopg.connect(system.dsn(Purpose.CONSUMER)) as consumer:
        assert consumer.execute("SELECT * FROM published.episodes").fetchall() == []

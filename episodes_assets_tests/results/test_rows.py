"""A day's rows in any order, page by page; searched, compared, and taken whole."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from episodes_assets.postgres.connect import Connection, connect_to_read, one_snapshot
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results import rows
from episodes_assets.results.rows import EPID, Order, Position, Selection
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.published import forget_published, put_day, put_title, reach
from episodes_assets_tests.support.system import System, day

ALL = Selection(day(2), 0)
MOST_VIEWED = Order("views", is_descending=True)


@pytest.fixture(scope="module")
def shared(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("rows") / "home", patch) as system,
    ):
        yield system


@pytest.fixture
def published(shared: System) -> System:
    """A system in which nothing is published."""
    forget_published(shared)
    return shared


@pytest.fixture(scope="module")
def results(shared: System) -> Iterator[Connection]:
    """As consumers read."""
    with connect_to_read(shared.dsn(Purpose.CONSUMER), Database.RESULTS) as connection:
        yield connection


def pages(
    results: Connection, wanted: Selection, order: Order, limit: int
) -> list[list[tuple[int, Decimal | None]]]:
    """All pages of a selection, with id and value of each row."""
    found = []
    after: Position | None = None
    while True:
        page = rows.read_page(results, wanted, order, limit, after)
        found.append([(row.epid, row.value) for row in page.rows])
        after = page.next_after
        if after is None:
            return found
        assert len(page.rows) == limit


NUMBERS = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.integers(0, 2**63 - 1) | st.integers(0, 30), NUMBERS, max_size=25),
    st.sampled_from([EPID, "views"]),
    st.booleans(),
    st.integers(1, 9),
)
def test_pages_in_any_order_have_every_row_once(
    shared: System, results: Connection, values: dict[int, Any], column: str, is_descending: bool, limit: int
) -> None:
    forget_published(shared)
    put_day(shared, day(2), {epid: {"views": value} for epid, value in values.items()})
    found = [row for page in pages(results, ALL, Order(column, is_descending), limit) for row in page]
    exact = {e: None if v is None else Decimal(repr(v)) for e, v in values.items()}
    if column == EPID:
        assert [epid for epid, _ in found] == sorted(values, reverse=is_descending)
        return
    assert dict(found) == exact
    assert len(found) == len(values)
    sign = -1 if is_descending else 1
    assert [epid for epid, _ in found] == sorted(
        values, key=lambda epid: (exact[epid] is None, sign * (exact[epid] or 0), epid)
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=1, max_size=8), TEXT.filter(lambda text: not text.strip().isdigit()))
def test_what_is_searched_for_stands_for_itself(
    shared: System, results: Connection, titles: list[str], text: str
) -> None:
    forget_published(shared)
    put_day(shared, day(2), dict(enumerate(reach(*range(len(titles))))))
    for epid, title in enumerate(titles):
        put_title(shared, epid, None, title, day(2))
    ((lowered,),) = shared.query("results", "SELECT lower(%s::text)", [text])
    lower = [each for ((each,),) in (shared.query("results", "SELECT lower(%s::text)", [t]) for t in titles)]
    expected = [epid for epid, title in enumerate(lower) if lowered in title]
    wanted = Selection(day(2), 0, text)
    assert [epid for page in pages(results, wanted, Order(), 3) for epid, _ in page] == expected
    assert [row.epid for part in rows.stream_rows(results, wanted) for row in part] == expected


def test_a_search_finds_ids_series_and_titles_in_any_case(published: System, results: Connection) -> None:
    put_day(published, day(2), dict(zip((1, 12, 100, 200, 300), reach(5, 4, 3, 2, 1), strict=True)))
    put_title(published, 1, "100% Wolf", "The Óutset", day(2))
    put_title(published, 12, "1000 Wolves", "_under\\score_", day(2))
    put_title(published, 100, None, None, day(2))
    put_title(published, 300, "Another", "12 monkeys", day(2))

    def found(text: str) -> list[int]:
        page = rows.read_page(results, Selection(day(2), 0, text), MOST_VIEWED, 10)
        assert page.matching == len(page.rows)
        return [row.epid for row in page.rows]

    assert found("wol") == [1, 12]
    assert found("100%") == [1]
    assert found("%") == [1]
    assert found("_") == [12]
    assert found("\\") == [12]
    assert found("óUTSET") == [1]
    assert found("12") == [12, 300]
    assert found("100") == [1, 12, 100]
    assert found("' OR true --") == []
    assert found(str(2**63)) == []
    assert found("²") == []


def test_a_page_says_what_its_episodes_are_called(published: System, results: Connection) -> None:
    put_day(published, day(2), dict(zip((1, 2), reach(5, 4), strict=True)))
    put_day(published, day(2), {1: {"views_last_7_days": 1}}, algorithm_id=1)
    put_title(published, 1, "Series", "Title", day(1))
    first, second = rows.read_page(results, ALL, MOST_VIEWED, 10).rows
    assert (first.series, first.season, first.episode, first.title) == ("Series", 1, 2, "Title")
    assert first.titled_on == day(1)
    assert first.metrics["views"] == 5
    assert (second.epid, second.title, second.titled_on) == (2, None, None)
    assert rows.find_title(results, 1).title == "Title"
    assert rows.find_title(results, 2).titled_on is None


def test_a_value_that_is_no_number_is_missing(published: System, results: Connection) -> None:
    """As an older version of an algorithm may have left it."""
    odd: list[Any] = ["5", True, [1], {"a": 1}, None]
    put_day(
        published, day(2), {n: {"views": each} for n, each in enumerate(odd)} | {9: {}, 10: {"views": 1.5}}
    )
    found = pages(results, ALL, MOST_VIEWED, 3)
    assert found[0][0] == (10, Decimal("1.5"))
    assert [epid for page in found for epid, _ in page] == [10, 0, 1, 2, 3, 4, 9]


def test_movers_are_those_that_both_days_have(published: System, results: Connection) -> None:
    put_day(published, day(1), dict(zip((1, 2, 3, 4, 5), reach(10, 10, 10, 10, 99), strict=True)))
    put_day(published, day(2), dict(zip((1, 2, 3, 4, 6), reach(15, 10, 2, 11, 99), strict=True)))
    put_title(published, 3, "Series", "Fallen", day(2))
    found = rows.read_movers(results, ALL, "views", day(1), 2)
    assert [(each.epid, *map(int, (each.before, each.value, each.change))) for each in found] == [
        (3, 10, 2, -8),
        (1, 10, 15, 5),
        (4, 10, 11, 1),
    ]
    assert found[0].title == "Fallen"
    assert [each.epid for each in rows.read_movers(results, ALL, "views", day(1), 1)] == [3, 1]


def test_an_episode_has_a_value_for_each_day_that_has_its_row(published: System, results: Connection) -> None:
    for number, views in ((1, 5), (2, 6), (4, 8)):
        put_day(published, day(number), dict(zip((7,), reach(views), strict=True)))
    put_day(published, day(3), dict(zip((8,), reach(1), strict=True)))
    found = rows.read_episode_days(results, 7, 0, day(4), 3)
    assert [(each.day, each.metrics and each.metrics["views"]) for each in found] == [
        (day(2), 6),
        (day(3), None),
        (day(4), 8),
    ]


def test_parts_are_of_one_moment(
    published: System, results: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 2)
    put_day(published, day(2), dict(enumerate(reach(1, 1, 1, 1, 1))))
    with one_snapshot(results):
        parts = rows.stream_rows(results, ALL)
        first = next(parts)
        published.query("results", "DELETE FROM published.results WHERE epid > 1")
        rest = [row.epid for part in parts for row in part]
    assert [row.epid for row in first] + rest == [0, 1, 2, 3, 4]
    assert [len(part) for part in rows.stream_rows(results, ALL)] == [2]

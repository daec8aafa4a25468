"""How pages say times and numbers, and draw them."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.dashboard import pages
from episodes_assets.dashboard.pages import HEIGHT, WIDTH, draw, plot

NOON = dt.datetime(2018, 3, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7800, "2 h 10 min"),
        (100 * 86400, "100 d 0 h"),
    ],
)
def test_spans(seconds: float, said: str) -> None:
    assert pages.span(seconds) == said


def test_ends_and_numbers() -> None:
    assert pages.end(NOON + dt.timedelta(minutes=3), NOON) == "12:03 UTC, in 3 min 0 s"
    assert pages.end(NOON + dt.timedelta(hours=13), NOON) == "2018-03-02 01:00 UTC, in 13 h 0 min"
    assert [pages.number(n) for n in (0, 0.04, 2.5, 3.0, 10.4, 1234.6)] == [
        "0",
        "0.0",
        "2.5",
        "3",
        "10",
        "1,235",
    ]
    assert (pages.jobs(1), pages.jobs(2000)) == ("1 job", "2,000 jobs")


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=100))
def test_a_line_stays_in_its_picture(numbers: list[float]) -> None:
    drawn = draw(numbers)
    points = [tuple(map(float, point.split(","))) for point in drawn.line.split()]
    assert len(points) == len(numbers)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert (drawn.top, drawn.latest) == (max(numbers), numbers[-1])


NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63)


@given(st.dictionaries(st.dates(dt.date(2018, 3, 1), dt.date(2018, 5, 1)), NUMBERS, max_size=70))
def test_a_plot_has_a_line_for_each_run_of_days_and_stays_in_its_picture(
    numbers: dict[dt.date, float | None],
) -> None:
    in_order = dict(sorted(numbers.items()))
    drawn = plot(in_order)
    given = [day for day, number in in_order.items() if number is not None]
    runs = sum(day - dt.timedelta(days=1) not in given for day in given)
    assert len(drawn.lines) == runs
    points = [tuple(map(float, point.split(","))) for line in drawn.lines for point in line.split()]
    assert len({x for x, _ in points}) == len(given)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert all(len(line.split()) > 1 for line in drawn.lines)
    values = [number for number in in_order.values() if number is not None]
    assert (drawn.lowest, drawn.highest) == ((min(values), max(values)) if values else (None, None))

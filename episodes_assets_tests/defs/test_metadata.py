"""The plots: whatever was counted when, an SVG that stays within its frame and is shown in its place."""

import datetime as dt
import re
from itertools import accumulate, pairwise
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.defs.metadata import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    counts_by_day,
    image,
    jobs_over_time,
)
from episodes_assets.planning.throughput import MOST_POINTS, FinishedBy

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
STEPS = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**7)), max_size=MOST_POINTS - 1)


@given(STEPS, st.integers(0, 10**8))
def test_it_stays_within_its_frame_and_never_goes_back(steps: list[tuple[float, int]], planned: int) -> None:
    seconds = list(accumulate(step[0] for step in steps))
    jobs = list(accumulate(step[1] for step in steps))
    later = [FinishedBy(NOW + dt.timedelta(seconds=s), j) for s, j in zip(seconds, jobs, strict=True)]
    svg = jobs_over_time([FinishedBy(NOW, 0), *later], planned)
    path = path_of(svg, "jobs finished over time")
    xs = [float(x) for x in re.findall(r"H([\d.]+)", path)]
    ys = [float(y) for y in re.findall(r"V([\d.]+)", path)]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)
    assert all(LEFT <= x <= WIDTH - RIGHT for x in xs)
    assert all(TOP <= y <= HEIGHT - BOTTOM for y in ys)


DAYS = st.dates(dt.date(2018, 1, 1), dt.date(2018, 3, 1))


@given(st.dictionaries(DAYS, st.integers(0, 10**10), min_size=1))
def test_each_of_the_last_days_has_a_bar(counts: dict[dt.date, int]) -> None:
    path = path_of(counts_by_day(counts), "viewings by day")
    bars = [(int(x), int(y)) for x, y in re.findall(rf"M(\d+) {HEIGHT - BOTTOM}V(\d+)", path)]
    shown = [counts[day] for day in sorted(counts)[-MOST_POINTS:]]
    assert len(bars) == len(shown)
    xs, ys = zip(*bars, strict=True)
    assert all(LEFT < left < right < WIDTH - RIGHT for left, right in pairwise(xs))
    assert all(TOP <= y <= HEIGHT - BOTTOM for y in ys)
    assert ys[shown.index(max(shown))] == (TOP if max(shown) else HEIGHT - BOTTOM)


def test_days_of_which_nothing_is_known_have_no_path() -> None:
    assert list(ET.fromstring(counts_by_day({}))) == []


def path_of(svg: str, name: str) -> str:
    """The data's path in a plot, which is not longer than Dagster's UI shows in its place."""
    assert len(image(svg, name).md_str or "") < 1000
    _, path = (each.attrib["d"] for each in ET.fromstring(svg) if each.tag.endswith("path"))
    return path

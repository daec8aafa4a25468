"""The plot: whatever was finished when, it is an SVG that stays within its frame."""

import datetime as dt
import re
from itertools import accumulate
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.defs.metadata import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, jobs_over_time
from episodes_assets.planning.throughput import MOST_POINTS, FinishedBy

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
STEPS = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**7)), max_size=MOST_POINTS - 1)


@given(STEPS, st.integers(0, 10**8))
def test_it_stays_within_its_frame_and_never_goes_back(steps: list[tuple[float, int]], planned: int) -> None:
    seconds = list(accumulate(step[0] for step in steps))
    jobs = list(accumulate(step[1] for step in steps))
    later = [FinishedBy(NOW + dt.timedelta(seconds=s), j) for s, j in zip(seconds, jobs, strict=True)]
    svg = jobs_over_time([FinishedBy(NOW, 0), *later], planned)
    assert len(svg) <= 690
    _, path = (each.attrib["d"] for each in ET.fromstring(svg) if each.tag.endswith("path"))
    xs = [float(x) for x in re.findall(r"H([\d.]+)", path)]
    ys = [float(y) for y in re.findall(r"V([\d.]+)", path)]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)
    assert all(LEFT <= x <= WIDTH - RIGHT for x in xs)
    assert all(TOP <= y <= HEIGHT - BOTTOM for y in ys)

"""What a profile is, and what is made of it: folded stacks, hot lines, a flame graph, speedscope's JSON."""

import hashlib
import json
from collections import Counter
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.profiling.stacks import (
    MOST_BYTES,
    MOST_FRAMES,
    RARE,
    WIDTH,
    Frame,
    Profile,
    Stack,
    flame_graph,
    frame,
    parse_folded,
    unpack,
)

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>&amp;"
names = st.text(max_size=20) | st.sampled_from(
    [EVIL, "f;g", "a (b.py:1)", "<lambda>", "thread (1): x", "\ud800"]
)
frames = st.builds(frame, names, names, st.integers(0, 10**9 - 1), st.just(["/usr/lib", "/usr/lib/site"]))
profiles = st.builds(
    Profile,
    st.integers(1, 1_000),
    st.dictionaries(st.lists(frames, min_size=1, max_size=6).map(tuple), st.integers(1, 10**6), max_size=12),
)

PLAN = Frame("plan_jobs", "episodes_assets/planning/jobs.py", 40)
ROWS = Frame("plan_jobs", "episodes_assets/planning/jobs.py", 44)
MERGE = Frame("DataFrame.merge", "pandas/core/frame.py", 900)
CLEAN = Frame("clean", "pandas/core/clean.py", 3)
WAIT = Frame("Condition.wait", "threading.py", 327)
MAIN = Frame("main", "dagster/main.py", 1)


def of_speedscope(found: dict[str, Any], rate: int) -> Profile:
    """The profile that a file of speedscope holds."""
    shared = [
        Frame(each["name"], each.get("file", ""), each.get("line", 0)) for each in found["shared"]["frames"]
    ]
    (own,) = found["profiles"]
    stacks: Counter[Stack] = Counter()
    for stack, seconds in zip(own["samples"], own["weights"], strict=True):
        stacks[tuple(shared[number] for number in stack)] += round(seconds * rate)
    return Profile(rate, stacks)


@given(profiles)
def test_every_form_holds_the_same(profile: Profile) -> None:
    assert parse_folded(profile.folded().split("\n"), profile.rate) == profile
    assert unpack(profile.pack(), profile.rate) == profile
    found = json.loads(json.dumps(profile.speedscope("x")))
    assert of_speedscope(found, profile.rate) == profile
    assert found["profiles"][0]["endValue"] == pytest.approx(profile.seconds)


@given(profiles)
def test_boxes_add_up(profile: Profile) -> None:
    boxes = profile.boxes(10**6)
    assert sum(box.samples for box in boxes if box.depth == 0) == profile.samples
    for box in boxes:
        below = [
            each for each in boxes
            if each.depth == box.depth + 1 and box.first <= each.first < box.first + box.samples
        ]  # fmt: skip
        assert sum(each.samples for each in below) <= box.samples
        assert all(each.first + each.samples <= box.first + box.samples for each in below)
    # Of some boxes, none is shown without the one around it.
    few = profile.boxes(4)
    assert few == [box for box in boxes if box in few]
    for box in few:
        around = [
            each
            for each in few
            if each.depth < box.depth and each.first <= box.first < each.first + each.samples
        ]
        assert len(around) == box.depth


@given(profiles.filter(lambda profile: profile.stacks))
def test_a_flame_graph_is_well_formed_whatever_functions_are_called(profile: Profile) -> None:
    drawn = ET.fromstring(flame_graph(profile, 50))
    tags = {each.tag.rpartition("}")[2] for each in drawn.iter()}
    assert tags == {"svg", "g", "title", "rect", "text"}
    allowed = {
        "class", "viewBox", "font-family", "font-size", "role", "aria-label", "data-first", "data-samples",
        "x", "y", "width", "height", "fill",
    }  # fmt: skip
    assert {name for each in drawn.iter() for name in each.attrib} <= allowed
    for each in drawn.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 <= float(each.attrib["x"]) <= WIDTH


def test_a_line_of_ours_counts_with_what_it_calls() -> None:
    profile = Profile(
        100,
        {
            (MAIN, PLAN, MERGE): 60,
            (MAIN, PLAN, MERGE, CLEAN): 20,
            (MAIN, ROWS): 15,
            (MAIN,): 5,
            (MAIN, PLAN, WAIT): 1_000,
        },
    ).without_waiting()
    assert profile.seconds == 1
    assert Profile(100, {(MAIN, WAIT): 3, (PLAN, WAIT): 4}).without_waiting(MAIN.file).stacks == {
        (MAIN, WAIT): 3
    }
    assert profile.hot_lines(10) == [
        (PLAN, 80, "DataFrame.merge"), (ROWS, 15, "plan_jobs"), (MAIN, 5, "main"),
    ]  # fmt: skip
    assert profile.hot_lines(1) == profile.hot_lines(10)[:1]
    assert profile.within("episodes_assets/planning/").stacks == {
        (PLAN, MERGE): 60, (PLAN, MERGE, CLEAN): 20, (ROWS,): 15, (MAIN,): 5,
    }  # fmt: skip


def test_threads_that_do_not_work_for_a_step_are_left_out() -> None:
    step = Frame("episode_jobs", "episodes_assets/defs/assets/episode_jobs.py", 60)
    pool = Frame("_worker", "concurrent/futures/thread.py", 83)
    reads = Frame("ProcessGroup._drain", "episodes_assets/cli/supervisor.py", 124)
    profile = Profile(100, {(MAIN, step, ROWS): 5, (pool, PLAN): 3, (MAIN, reads): 99})
    assert profile.working_for("episodes_assets/defs/assets/") == Profile(
        100, {(step, ROWS): 5, (pool, PLAN): 3}
    )


def test_files_are_told_below_what_they_were_imported_from() -> None:
    roots = [
        "/home/ana/.venv/lib/python3.11",
        "/home/ana/.venv/lib/python3.11/site-packages",
        "",
        "/home/ana/",
    ]
    found = {
        "/home/ana/.venv/lib/python3.11/threading.py": "threading.py",
        "/home/ana/.venv/lib/python3.11/site-packages/pandas/core/frame.py": "pandas/core/frame.py",
        "/home/ana/episodes_assets/days.py": "episodes_assets/days.py",
        "/home/bob/secret/script.py": "script.py",
        "<frozen importlib._bootstrap>": "<frozen importlib._bootstrap>",
        "": "",
    }
    assert {file: frame("f", file, 1, roots).file for file in found} == found


def test_what_py_spy_prints_is_read() -> None:
    said = [
        "thread (7): MainThread;main (/lib/a.py:3);hot (/lib/b.py:40) 12",
        "thread (8): evil;name;wait (/lib/threading.py:7) 3",
        "no count",
        "negative -1",
        "nothing 0",
        "huge 99999999999",
        "",
    ]
    assert parse_folded(said, 100, ["/lib"]).stacks == {
        (Frame("main", "a.py", 3), Frame("hot", "b.py", 40)): 12,
        (Frame("name"), Frame("wait", "threading.py", 7)): 3,
    }


def test_a_deep_recursion_loses_its_outer_frames() -> None:
    line = ";".join(f"f{number} (a.py:{number})" for number in range(1, 1_001))
    (stack,) = parse_folded([f"{line} 1"], 100).stacks
    assert len(stack) == MOST_FRAMES
    assert stack[-1] == Frame("f1000", "a.py", 1_000)
    assert stack[0].function == "[outer frames]"


def test_a_profile_is_bounded_and_counts_all_the_same() -> None:
    # Of functions without a pattern, which hardly gets smaller.
    names = {n: hashlib.sha256(str(n).encode()).hexdigest() for n in range(1, 3_001)}
    stacks: dict[Stack, int] = {(PLAN, Frame(name, "a.py", n)): n for n, name in names.items()}
    profile = Profile(100, stacks)
    assert len(profile.pack()) < MOST_BYTES
    small = profile.pack(20_000)
    assert len(small) <= 20_000
    kept = unpack(small, 100)
    assert kept.samples == profile.samples
    assert kept.stacks[(RARE,)] > 0
    assert max(kept.stacks, key=lambda stack: kept.stacks[stack] if stack != (RARE,) else 0) == max(
        stacks, key=lambda stack: stacks[stack]
    )
    assert Profile(100, {}).pack(1)  # nothing is left to be given up

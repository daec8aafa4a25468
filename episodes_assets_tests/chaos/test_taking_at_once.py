"""Two processes take days into one lake at once, in a folder and in an object store: they end as one."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from episodes_assets_tests.chaos.at_once import in_processes
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import run_days
from episodes_assets_tests.support.lake_contents import contents
from episodes_assets_tests.support.object_store import BUCKET, connect, object_store
from episodes_assets_tests.support.run_process import own_process
from episodes_assets_tests.support.system import System, day

TAKING = ["input_episodes"]


@pytest.fixture(params=["folder", "object store"])
def lakes(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What the URLs of lakes begin with."""
    if request.param == "folder":
        yield str(tmp_path)
        return
    with object_store() as store:
        connect(monkeypatch, store.address)
        yield f"s3://{BUCKET}"


@pytest.mark.slow
def test_days_are_taken_by_two_processes_at_once(
    system: System, chaos: Chaos, lakes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.generate(day(1), day(3), episodes=60)

    def begin(name: str) -> str:
        """A lake of its own, with snapshots of its own, to which the first day is taken."""
        monkeypatch.setenv("EPISODES_LAKE_URL", f"{lakes}/{name}")
        monkeypatch.setenv("EPISODES_SNAPSHOTS_URL", str(tmp_path / f"snapshots-{name}"))
        with own_process(run_days, system, day(1), select=TAKING) as run:
            assert run.result().success
        return f"{lakes}/{name}"

    calm = begin("calm")
    for number in (2, 3):
        with own_process(run_days, system, day(number), select=TAKING) as run:
            assert run.result().success
    expected = contents(calm)
    for attempt in range(chaos.pick(short=2, long=20)):
        for what, numbers in (("one day", (2, 2)), ("different days", (2, 3))):
            lake = begin(f"{numbers[1]}-{attempt}")
            with chaos.attack(Promise.TWO, f"two processes take {what} into a lake"):
                takers = [partial(run_days, system, day(each), select=TAKING) for each in numbers]
                ends = in_processes(chaos.random, 0.3, *takers)
                assert all(end.success for end in ends), [end.message for end in ends]
                # And what the first day had brought along: the viewings of the days before it.
                last = str(max(day(each) for each in numbers))
                assert contents(lake) == {
                    table: [file for file in files if file[0] <= last] for table, files in expected.items()
                }


@pytest.mark.slow
def test_a_lake_is_begun_by_two_processes_at_once(
    system: System, chaos: Chaos, lakes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.generate(day(1), day(1), episodes=60)
    found = []
    for attempt in range(chaos.pick(short=2, long=20)):
        monkeypatch.setenv("EPISODES_LAKE_URL", f"{lakes}/{attempt}")
        monkeypatch.setenv("EPISODES_SNAPSHOTS_URL", str(tmp_path / f"snapshots-{attempt}"))
        with chaos.attack(Promise.TWO, "two processes begin a lake"):
            taker = partial(run_days, system, day(1), select=TAKING)
            ends = in_processes(chaos.random, 0.3, taker, taker)
            assert all(end.success for end in ends), [end.message for end in ends]
            found.append(contents(f"{lakes}/{attempt}"))
            assert found[-1] == found[0]

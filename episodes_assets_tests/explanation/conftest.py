"""Days that were really worked, for tests that only look at them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from episodes_assets_tests.support.explained import PREMIERE, START, watch
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.system import System, day, failure

FILL = [(epid, 0, PREMIERE, START) for epid in range(101, 121)]


@pytest.fixture(scope="module")
def worked(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two days that were worked and published, one that was only taken, and one whose drop was refused.

    Viewings of the second were taken with the third.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("explained") / "home", patch) as system,
    ):
        rows = [
            *FILL,
            (1, 0, PREMIERE, START),
            (1, 1, None, START),
            (2, 0, day(3), START),
            (3, 0, PREMIERE, "2018-02-25"),
            (4, 0, PREMIERE, START),
            (4, 0, "2018-02-02", START),
            (5, 0, PREMIERE, START),
            (5, 0, PREMIERE, START),
            (-7, 0, PREMIERE, START),
            (8, 99, PREMIERE, START),
        ]
        system.insert_drop(day(2), [*rows, (6, 0, PREMIERE, START)])
        system.insert_drop(day(3), rows)
        system.insert_drop(day(4), [*rows, (9, 0, "20180-03-01", START)])
        system.insert_drop(day(5), [(1, 0, None, START), (2, 0, None, START), (3, 0, PREMIERE, START)])
        watch(system, day(1), 1, 1)
        watch(system, day(2), 1, 3)
        watch(system, day(3), 1, 1, 1, 2)
        with system.workers(1):
            result = system.materialize(day(2), day(3))
            assert result.success, failure(result)
        watch(system, day(3), 101, 101, 101)  # they arrive late, and are taken with the next day
        assert system.materialize(day(4), select=["input_episodes"]).success
        assert not system.materialize(day(5), select=["input_episodes"]).success
        yield system

"""A micro-batch gives the same outcomes however small the parts are that it computes in."""

import datetime as dt
import shutil

import numpy as np
import pytest

from episodes_assets.errors import LakeReplaced
from episodes_assets.lake import viewings
from episodes_assets.worker.compute import JobWindows, run_micro_batch
from episodes_assets_tests.support.system import System, day


@pytest.mark.long
def test_parts_of_any_size_compute_the_same(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.generate(day(1), day(1), episodes=60)
    epids = [epid for (epid,) in system.query("input", "SELECT DISTINCT epid FROM viewings WHERE epid > 0")]
    # Among them one that nobody has watched, at each end.
    epids = [-1, *epids, 10**12]
    windows = JobWindows(
        epid=np.repeat(np.array(epids, dtype=np.int64), 3),
        algorithm_id=np.tile(np.array([0, 1, 2], dtype=np.int16), len(epids)),
        window_start=np.full(3 * len(epids), np.datetime64("2018-02-20")),
    )
    version = system.take_viewings(day(1) - dt.timedelta(days=3), day(1))
    batch = run_micro_batch(system.settings.lake, version, day(1), windows)
    assert set(batch.seconds_by_algorithm) == {0, 1, 2}
    assert all(seconds > 0 for seconds in batch.seconds_by_algorithm.values())
    whole = batch.outcomes
    assert len(whole["metrics"]) == 3 * len(epids)
    assert len(set(whole["metrics"])) > 10
    for part in (1, 7, 100):
        monkeypatch.setattr(viewings, "PART_VIEWINGS", part)
        assert run_micro_batch(system.settings.lake, version, day(1), windows).outcomes == whole


def test_a_process_that_keeps_running_computes_nothing_from_a_lake_that_was_replaced(system: System) -> None:
    system.generate(day(1), day(1), episodes=12)
    windows = JobWindows(
        epid=np.array([1], dtype=np.int64),
        algorithm_id=np.array([0], dtype=np.int16),
        window_start=np.full(1, np.datetime64("2018-03-01")),
    )
    version = system.take_viewings(day(1), day(1))
    run_micro_batch(system.settings.lake, version, day(1), windows)
    shutil.rmtree(system.settings.lake)
    system.query("input", "UPDATE viewings SET seconds_watched = 1")
    other = system.take_viewings(day(1), day(1))
    assert other.number == version.number
    run_micro_batch(system.settings.lake, other, day(1), windows)
    with pytest.raises(LakeReplaced, match="not the one that the plan of 2018-03-01 was made from"):
        run_micro_batch(system.settings.lake, version, day(1), windows)

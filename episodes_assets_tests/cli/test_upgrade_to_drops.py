"""A home in which an older release has kept snapshots goes on without loss."""

import shutil
import subprocess
from pathlib import Path

import pytest

from episodes_assets.errors import NotBroughtIn
from episodes_assets.lake.older_snapshots import OlderSnapshots
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.input_viewings import BEFORE, fill, materialize
from episodes_assets_tests.support.invoke import output
from episodes_assets_tests.support.older_release import become_older
from episodes_assets_tests.support.older_snapshots import contents
from episodes_assets_tests.support.system import System, day, failure

pytestmark = [pytest.mark.process, pytest.mark.long]

AGREE = "The databases and the lake agree"


def init(system: System) -> subprocess.CompletedProcess[str]:
    return system.cli("db", "init", env={"EPISODES_ADMIN_DSN": system.admin["queue"]})


def corrected(system: System) -> None:
    """Day 2 gets another drop, and is planned and worked from it."""
    system.insert_drop(day(2), [(9, 0, "2018-02-01", "2018-02-20")])
    materialize(system, day(2), config={"refresh": True, "reason": "an episode was missing"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "with_viewings",
    [pytest.param(True, id="a lake of viewings"), pytest.param(False, id="no lake", marks=pytest.mark.slow)],
)
def test_a_home_of_an_older_release_goes_on(system: System, with_viewings: bool) -> None:
    fill(system, BEFORE, day(4))
    with system.workers():
        materialize(system, day(1), day(2))
        corrected(system)
    materialize(system, day(3), select=PLANNING)  # its jobs are in flight
    published = system.published()
    become_older(system, with_viewings=with_viewings)
    snapshots = Path(system.settings.snapshots)
    before = contents(snapshots)
    refused = failure(system.materialize(day(4)))
    assert "are not in the lake" in refused
    assert "run `episodes db init`" in refused
    done = init(system)
    assert (done.returncode, "4 of 4 older snapshots brought in" in done.stderr) == (0, True), done.stderr
    assert contents(snapshots) == before
    again = init(system)
    assert (again.returncode, "older snapshots" in again.stderr) == (0, False)
    if with_viewings:
        assert AGREE in output("db", "status")[0]
    shown = output("history", str(day(2)))[0]
    older, newer = system.drops.versions(day(2))
    assert (older.reason, newer.reason) == ("", "an episode was missing")
    assert older.snapshot_id in shown
    assert newer.snapshot_id in shown
    # They are not needed any more: plans in flight are worked, days are worked again, the history goes on.
    shutil.rmtree(snapshots)
    with system.workers():
        if not with_viewings:
            materialize(system, day(1), day(2))  # which begins the lake of viewings
        materialize(system, day(3), day(4))
        assert system.published().query("day < @day(3)").equals(published)
        materialize(system, day(1), day(4), rework=True)
    after = system.published()
    assert after.query("day < @day(3)").equals(published)
    assert {*after["day"]} == {day(number) for number in range(1, 5)}
    assert AGREE in output("db", "status")[0]
    assert "are whole" in output("lake", "verify")[0]
    # All that an older plan or publication names stays.
    system.cli("lake", "vacuum", "--remove", "--older-than", "1")
    assert {each.snapshot_id for each in system.drops.versions(day(2))} == {
        older.snapshot_id,
        newer.snapshot_id,
    }
    assert "are whole" in output("lake", "verify")[0]


@pytest.mark.slow
def test_a_day_whose_viewings_are_gone_is_still_planned_as_it_was(system: System) -> None:
    fill(system, BEFORE, day(2))
    with system.workers():
        materialize(system, day(1), day(2))
    before = system.published()
    become_older(system, with_viewings=False)
    init(system)
    system.query("input", "DELETE FROM viewings WHERE viewed_at < '2018-03-02Z'")
    plans = system.query("queue", "SELECT plan_id, checksum FROM ledger.plans ORDER BY 1")
    result = system.materialize(day(1), select=["episode_jobs"])
    assert result.success, failure(result)
    assert system.query("queue", "SELECT plan_id, checksum FROM ledger.plans ORDER BY 1") == plans
    assert "cannot be computed again" in failure(
        system.materialize(day(1), select=["episode_jobs"], rework=True)
    )
    assert system.published().equals(before)


def test_a_damaged_snapshot_stops_the_upgrade_by_name(system: System) -> None:
    fill(system, BEFORE, day(2))
    materialize(system, day(1), day(2), select=PLANNING)
    become_older(system, with_viewings=True)
    (damaged,) = Path(system.settings.snapshots, "day=2018-03-02").glob("*/quarantine.parquet")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    refused = init(system)
    assert refused.returncode == 1
    assert f"{damaged} is not the file that was written" in refused.stderr.replace("\n", "")
    with pytest.raises(NotBroughtIn):
        OlderSnapshots(system.settings.snapshots).require_brought_in(system.drops)
    damaged.write_bytes(whole)
    assert init(system).returncode == 0
    assert AGREE in output("db", "status")[0]

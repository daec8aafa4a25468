"""Correcting a day gives what a system would have that had the right input from the start."""

import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg
import pytest

from episodes_assets.cli import correct as correct_module
from episodes_assets.cli.correct import correct, history
from episodes_assets.cli.execution import materialize_days
from episodes_assets.cli.runs import backfill, run, run_config
from episodes_assets.definitions import defs
from episodes_assets.defs.assets import ASSETS
from episodes_assets.errors import BadRunConfig, ReasonMissing, RunFailed, StateGap
from episodes_assets.ledger.held import cancel_day, read_held
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import publications, state
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.runs import QUIET
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process

LATE = 9  # the episode that the drop of day 2 lacks by mistake


def fill(system: System) -> None:
    for number in range(1, 5):
        epids = [*range(1, 6), *([LATE] if number > 2 else [])]
        rows = [(e, a, "2018-02-01", "2018-02-20") for e in epids for a in (0, 1)]
        system.insert_drop(day(number), rows)
        system.insert_viewings([(e, 7, f"{day(number)} 12:00+00", 60, True) for e in [*range(1, 6), LATE]])


def correct_viewings(system: System, seconds: int) -> None:
    """Change what was viewed on later days and not which episodes were."""
    system.query("input", "UPDATE viewings SET seconds_watched = %s WHERE viewed_at >= %s", [seconds, day(2)])


def plans(system: System) -> dict[Any, str]:
    query = "SELECT day, checksum FROM ledger.plans WHERE superseded_at IS NULL"
    return dict(system.query("queue", query))


def shown_of(capsys: pytest.CaptureFixture[str], number: int) -> str:
    capsys.readouterr()
    history(str(day(number)))
    return capsys.readouterr().out


def launchpad(name: str) -> dict[str, Any]:
    """The configuration that a job's launchpad shows for day 2."""
    config = defs.resolve_job_def(name).get_run_config_for_partition_key(str(day(2)))
    return dict(config["ops"])


@pytest.mark.slow
def test_a_correction_reaches_every_later_day(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    fill(system)
    with system.workers():
        first = system.materialize(day(1), day(4))
        assert first.success, failure(first)
        wrong, wrong_plans = system.published(), plans(system)
        system.insert_drop(day(2), [(LATE, a, "2018-02-01", "2018-02-20") for a in (0, 1)])
        correct_viewings(system, 90)
        system.query("input", "DELETE FROM episodes WHERE batch_date <> %s", [day(2)])

        # As the command leaves it that is interrupted between its two runs: the first, launched in the UI.
        config = launchpad("correct_day")
        config["take_input"]["config"]["reason"] = "an episode was [missing]"
        config["take_input"]["config"]["accept_lost_viewings"] = True  # they were changed
        with dg.DagsterInstance.get() as instance:
            launched = defs.resolve_job_def("correct_day").execute_in_process(
                instance=instance, partition_key=str(day(2)), run_config={"ops": config, **QUIET}
            )
        assert launched.success
        assert "stale: yesterday has changed since" in shown_of(capsys, 3)
        correct(str(day(2)), reason="an episode was [missing]", workers=0)
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    # Day 2 was right already; day 4 has the plan it had, and new outcomes.
    assert lines["2018-03-02"] == ["12", "12", "unchanged"]
    assert lines["2018-03-04"] == ["12", "12", "changed"]
    assert plans(system)[day(4)] == wrong_plans[day(4)]
    assert plans(system)[day(3)] != wrong_plans[day(3)]

    corrected = system.published()
    assert corrected.query("day == @day(1)").equals(wrong.query("day == @day(1)"))
    assert "stale" not in shown_of(capsys, 3)
    shown = " ".join(shown_of(capsys, 2).split())
    assert shown.count("an episode was [missing]") == 2  # of the drop, and of the viewings
    taken = [drop.snapshot_id for drop in system.drops.versions(day(2))]
    assert len(taken) == 2
    assert all(each in shown for each in taken)
    with connect(system.dsn(Purpose.RESULTS)) as results:
        recorded = publications.read_history(results, day(2))
    # Worked again when run again: from another plan, with the same rows.
    assert [each.rows for each in recorded] == [10, 12, 12]
    assert [each.snapshot_id for each in recorded] == [taken[0], taken[1], taken[1]]
    assert recorded[1].checksum == recorded[2].checksum != recorded[0].checksum

    system.forget_everything()
    with system.workers():
        right = system.materialize(day(1), day(4))
        assert right.success, failure(right)
    assert system.published().equals(corrected)


def test_the_launchpad_does_what_the_command_does() -> None:
    assert launchpad("correct_day") == run_config(refresh=True, rework=True)["ops"]
    assert launchpad("rework_days") == {"episode_jobs": run_config(rework=True)["ops"]["episode_jobs"]}
    # As run, but for what is not said there: to keep what was taken and worked.
    repairing = run_config(repair=True)["ops"]
    del repairing["take_input"], repairing["episode_jobs"]["config"]["rework"]
    assert launchpad("repair_days") == repairing
    for name in ("correct_day", "rework_days", "repair_days"):
        job = defs.resolve_job_def(name)
        assert job.backfill_policy == dg.BackfillPolicy.single_run()
        keys = {spec.key for asset in ASSETS for spec in asset.specs}
        assert set(job.asset_layer.executable_asset_keys) == keys


def test_a_refresh_and_a_repair_need_a_reason_of_ones_own() -> None:
    asked: tuple[dict[str, Any], ...] = (
        {"refresh": True},
        {"repair": True},
        {"accept_lost_viewings": True},
    )
    for options in asked:
        for reason in ("", " "):
            with pytest.raises(ReasonMissing, match="needs a reason: say by `--reason WHY`"):
                run(str(day(1)), reason=reason, **options)
            with pytest.raises(ReasonMissing, match="needs a reason: say by `--reason WHY`"):
                backfill(str(day(1)), str(day(2)), reason=reason, **options)
    others: tuple[dict[str, Any], ...] = ({}, {"rework": True})
    for options in others:
        with pytest.raises(BadRunConfig, match="--reason is for --refresh, --repair"):
            run(str(day(1)), reason="why", **options)


@pytest.mark.slow
def test_the_reason_of_a_refresh_is_kept(system: System) -> None:
    fill(system)
    system.plan(day(1))
    system.insert_drop(day(1), [(LATE, 0, "2018-02-01", "2018-02-20")])
    done = system.cli("run", str(day(1)), "--refresh", "--reason", "an episode was late", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert [drop.reason for drop in system.drops.versions(day(1))] == ["", "an episode was late"]


def test_what_cannot_be_corrected(system: System) -> None:
    with pytest.raises(ReasonMissing):
        correct(str(day(1)), reason=" ")
    with pytest.raises(StateGap, match="2018-03-01 has never been run"):
        correct(str(day(1)), reason="why")


@pytest.mark.slow
def test_a_day_that_is_tracked_meanwhile_is_corrected_as_well(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daily run need not stop for a correction."""
    fill(system)
    system.plan(day(1), day(2))
    ran: list[tuple[Any, Any]] = []

    def materialize(_instance: object, _dsns: object, first: Any, last: Any, _config: object) -> None:
        if not ran:
            system.insert_drop(day(1), [(LATE, 0, "2018-02-01", "2018-02-20")])
            system.plan(day(3))  # after the command has looked, before the corrected day is tracked
        ran.append((first, last))
        days = (first, None if first == last else last)
        config = {"refresh": True, "reason": "why"} if len(ran) == 1 else None
        done = system.materialize(*days, select=PLANNING, config=config)
        assert done.success, failure(done)

    monkeypatch.setattr(correct_module, "materialize_days", materialize)
    correct(str(day(1)), reason="why", workers=0)
    assert ran == [(day(1), day(1)), (day(2), day(3))]
    with connect(system.dsn(Purpose.RESULTS)) as results:
        latest = state.latest_day(results)
        assert latest
        assert latest.day == day(3)
        assert not state.built_on_another_past(results, latest)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [pytest.param(-1, id="before the first day"), pytest.param(2, id="of a day")]
)
def test_a_viewing_that_could_not_be_read_is_put_right_as_its_error_says(system: System, number: int) -> None:
    """Also where no drop of its day is there, or never was."""
    fill(system)
    if number < 1:
        system.insert_viewings([(e, 7, f"{day(number)} 12:00+00", 60, True) for e in range(1, 6)])
    system.query("input", "ALTER TABLE viewings DROP COLUMN completed, ADD COLUMN completed text")
    system.query(
        "input",
        "UPDATE viewings SET completed = 'perhaps' WHERE epid = 2 AND viewed_at >= %s AND viewed_at < %s",
        [f"{day(number)}Z", f"{day(number + 1)}Z"],
    )
    held_day = day(max(number, 1))
    with system.workers():
        assert not system.materialize(day(1), held_day).success
        with connect(system.dsn(Purpose.QUEUE), read_only=True) as queue:
            query = "SELECT plan_id FROM ledger.plans WHERE day = %s AND superseded_at IS NULL"
            ((plan_id,),) = queue.execute(query, [held_day])
            held = read_held(queue, [plan_id], each=10)
        assert {each.epid for each in held} == {2}
        (said,) = {command for each in held for command in re.findall("`episodes (.*?)`", each.error)}
        assert f"--since {day(number)} " in said
        system.query("input", "UPDATE viewings SET completed = 't' WHERE completed = 'perhaps'")
        system.query("input", "DELETE FROM episodes")
        command = said.replace("DAY", str(held_day)).replace("WHY", "'it was no truth value'")
        done = system.cli(*shlex.split(command), "--workers", "0")
    assert done.returncode == 0, done.stderr
    published = system.published()
    assert {*published.query("day == @held_day")["epid"]} == {1, 2, 3, 4, 5}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("held", "left"),
    [
        ([2], ["run 2018-03-02", "backfill 2018-03-03 2018-03-04 --rework"]),
        ([3, 4], ["backfill 2018-03-03 2018-03-04"]),
    ],
    ids=["of the day", "of later days"],
)
def test_a_correction_that_meets_held_jobs_is_finished_by_what_its_error_names(
    system: System, monkeypatch: pytest.MonkeyPatch, held: list[int], left: list[str]
) -> None:
    """Drops and plans are the same, so nothing but the error tells which days are of the old viewings."""
    fill(system)
    with system.workers():
        first = system.materialize(day(1), day(4))
        assert first.success, failure(first)
    wrong = system.published()
    correct_viewings(system, 90)

    def hold(number: int) -> None:
        """Once it is planned anew."""
        query = "SELECT plan_id FROM ledger.plans WHERE day = %s"
        eventually(lambda: len(system.query("queue", query, [day(number)])) > 1)
        with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
            cancel_day(queue, day(number), reason="why", cancelled_by="a test")

    def materialize(instance: Any, dsns: Any, since: Any, until: Any, config: Any) -> str:
        if since != day(held[0]):
            with system.workers():
                return materialize_days(instance, dsns, since, until, config)
        with ThreadPoolExecutor(len(held)) as pool:  # without workers, so that all jobs can be held
            holding = pool.map(hold, held)
            try:
                return materialize_days(instance, dsns, since, until, config)
            finally:
                list(holding)

    monkeypatch.setattr(correct_module, "materialize_days", materialize)
    with pytest.raises(RunFailed, match="jobs are held") as refused:
        correct(str(day(2)), reason="why", workers=0, accept_lost_viewings=True)
    said = re.findall("`episodes (.*?)`", str(refused.value))
    assert said == [f"jobs retry {day(held[0])}", f"jobs waive {day(held[0])}", *left]
    retried = [f"jobs retry {day(number)}" for number in held]
    with system.workers():
        for command in [*retried, *left]:
            none = [] if command in retried else ["--workers", "0"]
            done = system.cli(*shlex.split(command), *none)
            assert done.returncode == 0, done.stderr
    corrected = system.published()
    assert not corrected.query("day > @day(2)").equals(wrong.query("day > @day(2)"))

    system.forget_everything()
    with system.workers():
        right = system.materialize(day(1), day(4))
        assert right.success, failure(right)
    assert system.published().equals(corrected)

"""A day is published without its held jobs by a recorded decision, and with them once they succeed."""

import os
import pwd
import socket

import dagster as dg
import pytest

from episodes_assets.accounts.identity import operating_system_user
from episodes_assets.cli import jobs
from episodes_assets.cli.correct import history
from episodes_assets.definitions import defs
from episodes_assets.defs.launches import LAUNCHED_BY, launched_by
from episodes_assets.errors import NothingToWaive, ReasonMissing
from episodes_assets.ledger import held, plans
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.progress import backlog, read_progress
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import publications
from episodes_assets_tests.support.plans import record
from episodes_assets_tests.support.runs import execute, run, tick
from episodes_assets_tests.support.system import System, day, failure


@pytest.mark.long
def test_publishing_without_held_jobs_and_with_them_later(
    system: System, queue: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    record(queue, *range(1, 11))
    fan_out_day(queue, day(1))
    system.finish_jobs("epid < 8")
    system.hold_jobs("epid IN (8, 9)")
    with dg.DagsterInstance.get() as instance:
        jobs.waive(str(day(1)), reason="the [first] two", by="ana\n b ")
        # Held later: not covered.
        system.hold_jobs("epid = 10")
        progress = read_progress(queue)[0]
        assert (progress.held, progress.waived, progress.is_done) == (1, 2, False)
        assert tick("publish_finished_days", instance) == []
        assert "1 jobs are held, among them epid 10" in failure(
            system.materialize(day(1), select=["job_outcomes"])
        )
        assert "needs a reason" in run(instance, "waive_held_jobs", {"reason": " "})
        assert run(instance, "waive_held_jobs", {"reason": "third"}) == ""
        jobs.status(str(day(1)), traceback=False)
        shown = capsys.readouterr().out
        assert "is published without 3 jobs: the [first] two (" in shown
        assert "waived: 2018-03-01 epid 8 algorithm 0" in shown
        assert "held:" not in shown
        assert backlog(queue) == 0

        (request,) = tick("publish_finished_days", instance)
        execute(instance, "publish_day", request)
        with connect(system.dsn(Purpose.CONSUMER)) as consumer:
            manifest = publications.find_day(consumer, day(1))
            assert manifest is not None
            assert (manifest.jobs, manifest.rows, manifest.left_out) == (10, 7, 3)
            me = operating_system_user()
            assert manifest.decision == f"the [first] two ({me}, as typed: ana b); third ({me})"
            assert publications.read_history(consumer, day(1)) == [manifest]
        assert system.published()["epid"].tolist() == list(range(1, 8))
        assert tick("publish_finished_days", instance) == []
        before = system.fingerprint()
        again = system.materialize(day(1), select=["job_outcomes", "published_results"])
        assert again.success, failure(again)
        assert system.fingerprint() == before

        # Another round for all of them, and the day is published with them.
        assert run(instance, "retry_held_jobs") == ""
        assert backlog(queue) == 3
        assert tick("publish_finished_days", instance) == []
        system.finish_jobs("epid > 7")
        (request,) = tick("publish_finished_days", instance)
        execute(instance, "publish_day", request)
        assert tick("publish_finished_days", instance) == []
    assert system.published()["epid"].tolist() == list(range(1, 11))
    with connect(system.dsn(Purpose.RESULTS)) as results:
        recorded = publications.read_history(results, day(1))
    assert [(each.rows, each.left_out) for each in recorded] == [(7, 3), (10, 0)]
    assert recorded[1].decision == ""
    assert recorded[1].algorithm_versions == {"reach": ["1"]}
    plan_id = plans.require_plan(queue, day(1)).plan_id
    assert [(each.jobs, each.still_waived) for each in held.read_waivers(queue, [plan_id])] == [
        (2, 0),
        (1, 0),
    ]
    history(str(day(1)))
    shown = capsys.readouterr().out
    assert f"1 jobs by {operating_system_user()} on" in " ".join(shown.split())
    assert "1 retried since: third" in " ".join(shown.split())


def test_a_run_names_the_user_of_its_process_whatever_its_tags(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "the-auditor")
    job = defs.resolve_job_def("prune_message_log")
    forged = {LAUNCHED_BY: "the-auditor"}
    with dg.DagsterInstance.get() as instance:
        for tags, added in (
            ({}, ""),
            ({"dagster/backfill": "none"}, ""),
            ({"dagster/schedule_name": "nightly_pruning"}, ", schedule nightly_pruning"),
            ({"dagster/sensor_name": "s"}, ", sensor s"),
        ):
            run = instance.create_run_for_job(job, tags={**forged, **tags})
            user = pwd.getpwuid(os.getuid()).pw_name
            assert launched_by(run) == f"os user {user}@{socket.gethostname()}{added}"
            assert instance.get_run_by_id(run.run_id) == run


def test_a_run_of_an_older_release_says_so() -> None:
    assert launched_by(dg.DagsterRun("waive_held_jobs")).startswith("unknown: ")


def test_what_cannot_be_waived(system: System, queue: Connection) -> None:
    record(queue, 1, 2)
    with pytest.raises(NothingToWaive, match="no job of 2018-03-01 is held"):
        held.waive_held_jobs(queue, day(1), reason="why", decided_by="who")
    system.hold_jobs("epid = 1")
    with pytest.raises(ReasonMissing):
        held.waive_held_jobs(queue, day(1), reason="why", decided_by=" ")
    held.waive_held_jobs(queue, day(1), reason="why", decided_by="who")
    with pytest.raises(NothingToWaive):
        held.waive_held_jobs(queue, day(1), reason="why", decided_by="who")
    # A superseded plan takes its jobs along; the decision stays on record.
    record(queue, 1, 2, 3)
    assert read_progress(queue)[0].waived == 0
    assert system.query("queue", "SELECT reason FROM ledger.waivers") == [("why",)]

"""The Fleet page on a real queue: what it shows to whom, and what its buttons do."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from episodes_assets.accounts.identity import Role
from episodes_assets.alerts.conditions import Alert, Assessment, Kind, Severity
from episodes_assets.alerts.lifecycle import ChannelName
from episodes_assets.dashboard.fleet import DAYS_SHOWN, HELD_ON_A_PAGE, HELD_SHOWN
from episodes_assets.ledger import plans, progress
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.held import TRACEBACK_CHARACTERS, waive_held_jobs
from episodes_assets.outbox import records
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.fleet_page import client, get
from episodes_assets_tests.support.html import Element, read
from episodes_assets_tests.support.plans import NO_DIGEST, jobs_of, record
from episodes_assets_tests.support.poisoned import FINDS_THEM
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.workers import states, worker

pytestmark = pytest.mark.process

RAISES = 90
POISONED = pd.Timestamp("2018-02-13")
EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


def press(browser: TestClient, path: str, **form: str) -> Element:
    """Send a form, and look at the page it leads to."""
    answer = browser.post(path, data=form)
    assert answer.status_code == 303, answer.text
    return get(browser, answer.headers["location"])


def posts(page: Element) -> set[str | None]:
    return {each.attributes["action"] for each in page.all("form", method="post")} - {"/logout"}


def counts(page: Element) -> dict[str, str]:
    """The counts of the only day on a page."""
    (found,) = [each for each in page.all("dl") if each.attributes.get("class") == "counts"]
    return {each.one("dt").text: each.one("dd").text for each in found.all("div")}


def test_an_empty_queue_teaches_and_open_alerts_say_what_to_do(system: System, queue: Connection) -> None:
    page = get(client(system), "/fleet")
    assert "Alerts" not in page.text
    alert = Alert(Kind.RUNS_FAILED, "DiskFull", Severity.ERROR, f"a run failed: {EVIL}", EVIL, "repair it")
    for channels in ([ChannelName.SLACK], []):
        records.evaluate(
            queue,
            Assessment({alert.key: alert}, {Kind.RUNS_FAILED}),
            channels,
            records.read_clock(queue),
            timedelta(days=1),
            records.Evaluator.SENSOR,
        )
    page = get(client(system), "/fleet/live")
    assert f"a run failed: {EVIL}" in page.text
    assert "What to do: repair it." in page.text
    assert "1 message about it not delivered yet" in page.text
    queue.execute("DELETE FROM alerts.alerts")
    page = get(client(system), "/fleet")
    assert "No day is in work. Materialise episode_jobs" in page.text
    assert "No worker is there" in page.text
    assert posts(page) == set()


@pytest.mark.slow
def test_workers_and_jobs_that_fail_are_seen_and_tried_again(
    system: System, tmp_path: Path, queue: Connection
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FINDS_THEM)
    jobs = jobs_of(1, 2, 1, 2).assign(
        algorithm_id=np.array([0, 0, RAISES, RAISES], dtype=np.int16), window_start=POISONED
    )
    plans.record_plan(
        queue,
        day(1),
        jobs,
        checksum="c",
        snapshot_id="s",
        code_version="1",
        chunk_jobs=10,
        viewings=system.take_viewings(day(1), day(1)),
    )
    fan_out_day(queue, day(1))
    browser = client(system)
    env = {
        "PYTHONPATH": str(tmp_path),
        "EPISODES_MAX_STARTS": "1",
        "EPISODES_JOB_TIMEOUT_SECONDS": "20",
        "EPISODES_BATCH_TIMEOUT_SECONDS": "20",
    }
    with worker(system, **env) as process:
        eventually(lambda: progress.read_progress(queue)[0].held == 2)
        eventually(lambda: "waits for work" in get(browser, "/fleet/live").text)
        page = get(browser, "/fleet")
        assert counts(page) == {
            "planned": "4",
            "waiting": "0",
            "running": "0",
            "succeeded": "2",
            "held": "2",
            "waived": "0",
        }
        bar = page.one("progress")
        assert (bar.attributes["value"], bar.attributes["max"]) == ("2", "4")
        assert "stopped: held jobs keep the day" in page.text
        assert page.all("a", href="/assets/job_outcomes?partition=2018-03-01")
        (row,) = page.one("tbody").all("tr")
        assert f"-{process.pid}" in row.one("th").text
        assert "alive" in row.text
        held = page.all("details")
        assert [each.one("summary").text for each in held] == [
            f"2018-03-01 · epid {epid} · algorithm 90 OSError: poisoned" for epid in (1, 2)
        ]
        assert "in compute" in held[0].one("pre").text
        assert held[0].all("a", href="/explain/2018-03-01/1/90")
        assert posts(page) == {
            "/fleet/days/2018-03-01/retry",
            "/fleet/days/2018-03-01/jobs/1/90/retry",
            "/fleet/days/2018-03-01/jobs/2/90/retry",
            "/profiles/batches",
            f"/profiles/workers/{row.one('th').text.split()[0]}",
        }
    page = press(browser, "/fleet/days/2018-03-01/jobs/2/90/retry")
    assert "Back with the fleet: 1 job of 2018-03-01." in page.text
    assert counts(page)["waiting"] == "1"
    page = press(browser, "/fleet/days/2018-03-01/retry")
    assert "Back with the fleet: 1 job of 2018-03-01." in page.text
    with worker(system, **env, FIXED="1"):
        eventually(lambda: set(states(system).values()) == {"succeeded"})
    page = get(browser, "/fleet")
    assert "No day is in work" in page.text
    assert "Finished last: 2018-03-01 (4 jobs)" in page.text
    # It stopped in an orderly way, or fell silent: the page tells which.
    assert "stopped" in page.one("tbody").text


def test_a_day_is_cancelled_after_a_question(system: System, queue: Connection) -> None:
    record(queue, 1, 2, 3)
    browser = client(system)
    assert "planned, not handed to the fleet yet" in get(browser, "/fleet").text
    fan_out_day(queue, day(1))
    system.finish_jobs("epid = 1")
    page = get(browser, "/fleet")
    assert posts(page) == set()  # cancelling asks first
    assert page.all("a", href="/fleet/days/2018-03-01/cancel")
    assert "Messages, each with a chunk of a day's jobs: 2 wait, the oldest for" in page.text
    question = get(browser, "/fleet/days/2018-03-01/cancel")
    assert "The 2 jobs that wait or run will be held" in question.text
    assert posts(question) == {"/fleet/days/2018-03-01/cancel"}

    refused = browser.post("/fleet/days/2018-03-01/cancel", data={"reason": "  "})
    assert refused.status_code == 400
    assert "cancelling needs a reason" in read(refused.text).text
    assert progress.read_progress(queue)[0].waiting == 2
    page = press(browser, "/fleet/days/2018-03-01/cancel", reason=EVIL)
    assert "Cancelled and held: 2 jobs of 2018-03-01." in page.text
    assert (counts(page)["held"], counts(page)["succeeded"]) == ("2", "1")
    assert "cancelled by ana at 20" in page.text
    assert EVIL in page.all("details")[0].text
    again = browser.post("/fleet/days/2018-03-01/cancel", data={"reason": "again"})
    assert again.status_code == 409
    assert "no job of 2018-03-01 waits or runs" in read(again.text).text
    assert "nothing to cancel" in get(browser, "/fleet/days/2018-03-01/cancel").text


def test_errors_and_tracebacks_are_text_wherever_they_stand(system: System, queue: Connection) -> None:
    record(queue, 1, 2)
    system.hold_jobs("true")
    long = EVIL + "x" * TRACEBACK_CHARACTERS + EVIL
    system.query("queue", "UPDATE ledger.job_attempts SET error = %s, traceback = %s", [EVIL, long])
    system.query(
        "queue",
        "INSERT INTO ledger.workers (worker, host, pid, release, started_at) VALUES (%s, %s, 1, %s, now())",
        [EVIL, EVIL, EVIL],
    )
    waive_held_jobs(queue, day(1), reason=EVIL, decided_by=EVIL)
    system.query("queue", "UPDATE ledger.job_attempts SET waiver_id = NULL WHERE position = 0")
    browser = client(system)
    for path in ("/fleet", "/fleet/live", "/fleet/days/2018-03-01/held"):
        page = get(browser, path)
        assert page.all("img") == []
        assert all(
            script.attributes.get("src") == "/dashboard/static/fleet.js" for script in page.all("script")
        )
        assert EVIL in page.text
        trace = page.all("pre")[0].text
        assert trace.endswith(EVIL)
        assert len(trace) == TRACEBACK_CHARACTERS
        assert "The end of its traceback" in page.text
    for forged in ("done=cancelled&day=<script>&jobs=1", f"done={EVIL}&day=2018-03-01&jobs=1", "notice=x"):
        page = get(browser, f"/fleet?{forged}")
        assert not [each for each in page.all("p") if each.attributes.get("class") == "notice"]


def test_a_viewer_sees_all_and_is_offered_no_change(system: System, queue: Connection) -> None:
    record(queue, 1, 2, 3)
    system.hold_jobs("epid = 1")
    browser = client(system, Role.VIEWER)
    for path in ("/fleet", "/fleet/live", "/fleet/days/2018-03-01/held", "/fleet/days/2018-03-01/cancel"):
        page = get(browser, path)
        assert "2018-03-01" in page.text
        assert posts(page) == set()
        assert not page.all("a", href="/fleet/days/2018-03-01/cancel")


def test_many_days_and_held_jobs_are_shown_a_few_at_a_time(system: System, queue: Connection) -> None:
    jobs = HELD_ON_A_PAGE + 10
    record(queue, *range(1, jobs + 1))
    system.hold_jobs("true")
    system.query("queue", "UPDATE ledger.job_attempts SET error = 'y' WHERE position < 3")
    for number in range(2, DAYS_SHOWN + 3):
        plans.record_plan(
            queue,
            day(number),
            jobs_of(1),
            checksum="c",
            snapshot_id="s",
            code_version="1",
            chunk_jobs=2,
            viewings=NO_DIGEST,
        )
    browser = client(system)
    page = get(browser, "/fleet")
    assert len(page.all("progress")) == DAYS_SHOWN
    assert "And 2 more days after these." in page.text
    assert 0 < len(page.all("details")) <= HELD_SHOWN
    assert f"{jobs} jobs failed for the last time" in page.text
    first = get(browser, "/fleet/days/2018-03-01/held")
    assert [each.text for each in first.one("ul").all("li")] == [f"{jobs - 3} x", "3 y"]
    (following,) = first.all("a", rel="next")
    last = get(browser, str(following.attributes["href"]))
    assert last.all("a", rel="next") == []
    shown = [each.attributes["id"] for page in (first, last) for each in page.all("details")]
    assert len(shown) == len(set(shown)) == jobs


@pytest.mark.parametrize("bad", ["x", "2018-02-30", "2018-03-02", EVIL.replace("/", ""), "2018-03-01%0A"])
def test_a_bad_day_is_a_plain_answer(system: System, queue: Connection, bad: str) -> None:
    record(queue, 1)
    before = system.fingerprint()
    browser = client(system)
    for path in ("held", "cancel"):
        page = get(browser, f"/fleet/days/{bad}/{path}", 404)
        assert "That did not work" in page.text
    for path in ("retry", "cancel", "jobs/1/0/retry"):
        assert browser.post(f"/fleet/days/{bad}/{path}", data={"reason": "why"}).status_code == 404
    assert system.fingerprint() == before


def test_a_job_that_is_none_is_a_plain_answer(system: System, queue: Connection) -> None:
    record(queue, 1)
    browser = client(system)
    for job in ("1/0", "x/0", f"{2**63}/0", f"1/{2**15}", "²/0", "--1/0", "1/-"):
        assert browser.post(f"/fleet/days/2018-03-01/jobs/{job}/retry").status_code == 404
    assert get(browser, f"/fleet/days/2018-03-01/held?after={10**30}", 404)


def test_a_queue_that_is_away_is_said(system: System) -> None:
    browser = client(system, queue_dsn="postgresql://nobody@127.0.0.1:1/queue")
    assert "cannot reach nobody@127.0.0.1:1/queue" in get(browser, "/fleet", 503).text
    live = browser.get("/fleet/live")
    assert live.status_code == 503
    assert live.headers["content-type"].startswith("text/plain")
    assert browser.post("/fleet/days/2018-03-01/retry").status_code == 503

"""`episodes alerts`: what is open and what to do; each channel is tried with a message."""

import datetime as dt
import subprocess
import time

import psutil
import pytest
from typer.testing import CliRunner

from episodes_assets.alerts.conditions import Alert, Assessment, Kind, Severity
from episodes_assets.alerts.lifecycle import ChannelName
from episodes_assets.cli.app import app
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.outbox import records
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.receivers import HOST, Received, free_port, web_server
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

SECRET = "very-secret"


def test_what_is_open_and_who_has_looked(system: System) -> None:
    shown, _ = output("alerts")
    assert shown == "No alert is open. Looked last: nobody ever has.\n"
    alert = Alert(
        Kind.CHECK_FAILED, "a.c", Severity.WARNING, "the check c failed", "first\nsecond", "repair it"
    )
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        now = records.read_clock(queue)
        for found in ({alert.key: alert}, {}):
            records.evaluate(
                queue,
                Assessment(found, {Kind.CHECK_FAILED}),
                [ChannelName.EMAIL],
                now,
                dt.timedelta(days=1),
                records.Evaluator.SENSOR,
            )
            shown, _ = output("alerts")
            if found:
                assert f"{now.astimezone(dt.UTC):%Y-%m-%d %H:%M}" in shown
                for said in (
                    "the check c failed",
                    "repair it",
                    "check_failed:a.c:",
                    "  second",
                    "alert_people",
                ):
                    assert said in shown
    assert shown.startswith("No alert is open. Looked last: alert_people ")


def test_each_channel_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no way to tell people" in refusal("alerts", "test").what
    webhook, slack, port = Received(), Received(status=404), free_port()
    slack_port = free_port()
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", HOST)
    monkeypatch.setenv("EPISODES_ALERT_WEBHOOK_URL", f"http://{HOST}:{port}/{SECRET}")
    monkeypatch.setenv("EPISODES_DEAD_MAN_URL", f"http://{HOST}:{port}/{SECRET}")
    with web_server(port, webhook), web_server(slack_port, slack):
        shown, _ = output("alerts", "test")
        assert shown.splitlines() == ["sent: webhook", "pinged: the dead man's switch"]
        assert (webhook.messages[0]["kind"], webhook.pings) == ("test", 1)
        monkeypatch.setenv("EPISODES_ALERT_SLACK_URL", f"http://{HOST}:{slack_port}/{SECRET}")
        result = CliRunner().invoke(app, ["alerts", "test"])
    assert result.exit_code == 1
    assert "failed: slack: 127.0.0.1 answered 404" in result.stdout
    assert "sent: webhook" in result.stdout
    assert SECRET not in result.output


def test_a_host_that_is_not_allowed_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPISODES_ALERT_WEBHOOK_URL", f"https://hooks.example.com/{SECRET}")
    refused = refusal("alerts", "test")
    assert "EPISODES_ALERT_WEBHOOK_URL -> hooks.example.com:443 denied" in refused.what
    assert SECRET not in str(refused)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_whole_system_tells_of_held_jobs_and_of_a_daemon_that_dies(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor tells through the daemon, and the web server of the daemon: within two minutes."""
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(1))
    system.hold_jobs("true")
    webhook, port, log = Received(), free_port(), system.home / "up.log"
    address = f"http://{HOST}:{port}"
    for name, value in {
        "ALLOWED_HOSTS": HOST,
        "ALERT_WEBHOOK_URL": f"{address}/{SECRET}",
        "DEAD_MAN_URL": f"{address}/alive",
    }.items():
        monkeypatch.setenv(f"EPISODES_{name}", value)
    with web_server(port, webhook), log.open("w") as output:
        up = subprocess.Popen(
            episodes_argv("up", "--port", str(free_port()), "--workers", "0"),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        daemon: psutil.Process | None = None
        try:
            wait_for(webhook, "jobs_held", "opened", 120)
            children = psutil.Process(up.pid).children()
            daemon = next(each for each in children if "dagster-daemon" in " ".join(each.cmdline()))
            deadline = time.monotonic() + 90
            while not webhook.pings:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            # Dead as far as anybody can tell; `up` would start one that has ended again.
            daemon.suspend()
            began = time.monotonic()
            wait_for(webhook, "daemon_silent", "opened", 150)
            took = time.monotonic() - began
            print(f"told of after {took:.0f} s")
            assert took <= 120, took
            daemon.resume()
            wait_for(webhook, "daemon_silent", "resolved", 90)
        finally:
            if daemon is not None:
                daemon.resume()
            up.terminate()
            up.wait(60)
    assert [(each["key"], each["event"]) for each in webhook.messages] == [
        ("jobs_held", "opened"),
        ("daemon_silent", "opened"),
        ("daemon_silent", "resolved"),
    ]
    assert SECRET not in log.read_text()


def wait_for(webhook: Received, key: str, event: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not any((each["key"], each["event"]) == (key, event) for each in webhook.messages):
        assert time.monotonic() < deadline, webhook.messages
        time.sleep(0.2)

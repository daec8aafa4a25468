"""`episodes alerts`: what is open and what to do; each channel is tried with a message."""

import datetime as dt

import pytest
from typer.testing import CliRunner

from episodes_assets.alerts.conditions import Alert, Assessment, Kind, Severity
from episodes_assets.alerts.lifecycle import ChannelName
from episodes_assets.cli.app import app
from episodes_assets.outbox import records
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.cli.invoke import output, refusal
from episodes_assets_tests.support.receivers import HOST, Received, free_port, web_server
from episodes_assets_tests.support.system import System

SECRET = "very-secret"


def test_what_is_open_and_who_has_looked(system: System) -> None:
    shown, _ = output("alerts")
    assert shown == "No alert is open. Looked last: nobody ever has.\n"
    alert = Alert(
        Kind.CHECK_FAILED, "a.c", Severity.WARNING, "the check c failed", "first\nsecond", "mend it"
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
                    "mend it",
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
        assert shown.splitlines() == ["sent: webhook", "asked: the dead man's URL"]
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

"""Messages reach real mail and web servers that are down for a while: none is lost, and none comes twice."""

import datetime as dt
import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.message import EmailMessage
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword
from typer.testing import CliRunner

from episodes_assets.alerts.conditions import Alert, Assessment, Kind, Severity
from episodes_assets.alerts.lifecycle import LONGEST_PAUSE, ChannelName, Event
from episodes_assets.cli import alerts
from episodes_assets.errors import AlertNotDelivered, BadSetting
from episodes_assets.outbox import messages, records
from episodes_assets.outbox.channels import Channel, Webhook, ping
from episodes_assets.outbox.configuration import channels_of, dead_man_url
from episodes_assets.outbox.delivery import Budget, alert_people, deliver
from episodes_assets.outbox.mail import Email
from episodes_assets.postgres.connect import Connection
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.certificates import certificate_for
from episodes_assets_tests.support.receivers import (
    HOST,
    Mailbox,
    Received,
    dripping_server,
    free_port,
    mail_server,
    web_server,
)

QUICK = Budget(seconds=20.0, timeout=5.0)
KNOWN = {Kind.JOBS_HELD, Kind.DAYS_STALLED}
SECRET = "xoxb-very-secret"


@dataclass
class Ports:
    mail: int = field(default_factory=free_port)
    slack: int = field(default_factory=free_port)
    webhook: int = field(default_factory=free_port)

    def channels(self) -> list[Channel]:
        return channels_of(
            load_settings(
                alert_smtp_url=f"smtp://{HOST}:{self.mail}",
                alert_email_to="ada@example.com, bob@example.com",
                alert_email_from="episodes@example.com",
                alert_slack_url=f"http://{HOST}:{self.slack}/services/{SECRET}",
                alert_webhook_url=f"http://{HOST}:{self.webhook}/hook?key={SECRET}",
                alert_webhook_token=SECRET,
                dashboard_url="https://episodes.example.com/",
            )
        )


def assessment(*kinds: Kind) -> Assessment:
    alerts = [Alert(kind, "", Severity.ERROR, f"<{kind}> & so", "more\nlines", "repair it") for kind in kinds]
    return Assessment({alert.key: alert for alert in alerts}, KNOWN)


def tell(queue: Connection, channels: list[Channel], *kinds: Kind) -> None:
    alert_people(
        queue,
        assessment(*kinds),
        channels,
        remind_after=dt.timedelta(hours=24),
        evaluator="a test",
        budget=QUICK,
    )


def let_pauses_pass(queue: Connection) -> None:
    queue.execute("UPDATE alerts.messages SET not_before = not_before - %s", [LONGEST_PAUSE])


def test_servers_that_are_down_for_a_while_get_each_message_once(
    queue: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ports = Ports()
    channels = ports.channels()
    mailbox, slack, webhook = Mailbox(), Received(), Received()
    # All are down: an alert is opened, another one too, and the first ends.
    tell(queue, channels, Kind.JOBS_HELD)
    tell(queue, channels, Kind.JOBS_HELD, Kind.DAYS_STALLED)
    tell(queue, channels, Kind.DAYS_STALLED)
    assert len(queue.execute("SELECT FROM alerts.messages WHERE delivered_at IS NULL").fetchall()) == 9
    # They are back, but refuse for now.
    mailbox.answer, slack.status, webhook.status = "451 later", 503, 302
    with (
        mail_server(ports.mail, mailbox),
        web_server(ports.slack, slack),
        web_server(ports.webhook, webhook),
    ):
        for _ in range(4):
            let_pauses_pass(queue)
            done = deliver(queue, channels, QUICK)
            assert (done.sent, len(done.problems)) == (0, 3)
        # Now they take them, one pass after another.
        mailbox.answer, slack.status, webhook.status = "250 OK", 200, 204
        for _ in range(3):
            let_pauses_pass(queue)
            deliver(queue, channels, QUICK)
        tell(queue, channels, Kind.DAYS_STALLED)
        tell(queue, channels)
    subjects = [str(mail["Subject"]) for mail in mailbox.mails]
    assert subjects == [
        "[episodes development] ALERT: <jobs_held> & so",
        "[episodes development] ALERT: <days_stalled> & so",
        "[episodes development] RESOLVED: <jobs_held> & so",
        "[episodes development] RESOLVED: <days_stalled> & so",
    ]
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 4
    assert len({mail["References"] for mail in mailbox.mails}) == 2
    assert mailbox.mails[0]["To"] == "ada@example.com, bob@example.com"
    assert "What to do: repair it." in mailbox.mails[0].get_content()
    assert "https://episodes.example.com/fleet" in mailbox.mails[0].get_content()
    assert [(each["key"], each["event"]) for each in webhook.messages] == [
        ("jobs_held", "opened"),
        ("days_stalled", "opened"),
        ("jobs_held", "resolved"),
        ("days_stalled", "resolved"),
    ]
    assert [each["Idempotency-Key"] for each in webhook.headers] == [each["id"] for each in webhook.messages]
    assert {each["Authorization"] for each in webhook.headers} == {f"Bearer {SECRET}"}
    assert [each["text"].splitlines()[0] for each in slack.messages] == [
        ":red_circle: *[episodes development] ALERT: &lt;jobs_held&gt; &amp; so*",
        ":red_circle: *[episodes development] ALERT: &lt;days_stalled&gt; &amp; so*",
        ":white_check_mark: *[episodes development] RESOLVED: &lt;jobs_held&gt; &amp; so*",
        ":white_check_mark: *[episodes development] RESOLVED: &lt;days_stalled&gt; &amp; so*",
    ]
    assert queue.execute("SELECT FROM alerts.messages WHERE delivered_at IS NULL").fetchall() == []
    assert SECRET not in caplog.text


def test_a_message_whose_acceptance_was_lost_comes_again_with_the_same_id(queue: Connection) -> None:
    ports, webhook = Ports(), Received(answers=False)
    channels = [each for each in ports.channels() if each.name == "webhook"]
    with web_server(ports.webhook, webhook):
        tell(queue, channels, Kind.JOBS_HELD)
        webhook.answers = True
        let_pauses_pass(queue)
        assert deliver(queue, channels, QUICK).sent == 1
    first, second = webhook.messages
    assert first == second
    assert webhook.headers[0]["Idempotency-Key"] == webhook.headers[1]["Idempotency-Key"] == first["id"]


def test_a_message_that_is_refused_for_good_keeps_back_no_other_alert(queue: Connection) -> None:
    ports, webhook = Ports(), Received(status=400)
    channels = [each for each in ports.channels() if each.name == "webhook"]
    with web_server(ports.webhook, webhook):
        tell(queue, channels, Kind.JOBS_HELD)
        webhook.status = 200
        tell(queue, channels, Kind.DAYS_STALLED)
    assert [each["key"] for each in webhook.messages] == ["days_stalled"]


def test_a_message_that_a_channel_cannot_express_keeps_back_no_other_one(
    queue: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox, port = Mailbox(), free_port()
    compose = Email._compose

    def fail_for_one(channel: Email, message: messages.Message) -> EmailMessage:
        if message.kind == Kind.JOBS_HELD:
            raise HeaderParseError(SECRET)
        return compose(channel, message)

    monkeypatch.setattr(Email, "_compose", fail_for_one)
    with mail_server(port, mailbox):
        tell(queue, [mail_channel(port)], Kind.JOBS_HELD, Kind.DAYS_STALLED)
    assert [mail["Subject"] for mail in mailbox.mails] == [
        f"[episodes development] ALERT: <{Kind.DAYS_STALLED}> & so"
    ]
    held, _ = sorted(records.read_open_alerts(queue), key=lambda each: each.kind != Kind.JOBS_HELD)
    assert (held.waiting, held.problem) == (1, "email: the message cannot be sent (HeaderParseError)")


def test_a_password_is_sent_over_tls_alone(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = certificate_for(HOST, tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mailbox, port = Mailbox(), free_port()

    def take(_server: Any, _session: Any, _envelope: Any, _mechanism: str, login: Any) -> AuthResult:
        mailbox.logins.append(login)
        return AuthResult(success=True)

    settings = load_settings(
        alert_smtp_url=f"smtp://ada:p%40ss@{HOST}:{port}",
        alert_email_to="ada@example.com",
        alert_email_from="episodes@example.com",
    )
    (channel,) = channels_of(settings)
    with mail_server(port, mailbox), pytest.raises(AlertNotDelivered, match="STARTTLS"):
        channel.send(a_message(), 5)
    assert (mailbox.mails, mailbox.logins) == ([], [])
    options = {"authenticator": take, "auth_require_tls": True, "tls_context": context}
    with mail_server(port, mailbox, **options):
        channel.send(a_message(), 5)
    assert mailbox.logins == [LoginPassword(b"ada", b"p@ss")]
    assert len(mailbox.mails) == 1


def a_message() -> messages.Message:
    now = dt.datetime(2018, 3, 1, tzinfo=dt.UTC)
    return messages.Message(
        1, UUID(int=1), 1, "k", "k", "error", Event.OPENED, ChannelName.EMAIL, "s", "d", "h", now, now, 1
    )


def test_a_dead_mans_url_that_does_not_answer_is_named_by_its_host_alone() -> None:
    with pytest.raises(AlertNotDelivered, match="did not answer") as refused:
        ping(f"http://{HOST}:{free_port()}/{SECRET}", 2)
    assert SECRET not in str(refused.value)


def mail_channel(port: int, host: str = HOST) -> Channel:
    (channel,) = channels_of(
        load_settings(
            alert_smtp_url=f"smtp://{host}:{port}",
            alert_email_to="ada@example.com, bob@example.com",
            alert_email_from="episodes@example.com",
        )
    )
    return channel


def test_a_recipient_that_is_refused_is_named_and_the_others_get_it_once(
    queue: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox, port = Mailbox(refused={"bob@example.com"}), free_port()
    refusal = f"email: {HOST} refused bob@example.com (550 no such mailbox)"
    with mail_server(port, mailbox):
        tell(queue, [mail_channel(port)], Kind.JOBS_HELD)
        let_pauses_pass(queue)
        tell(queue, [mail_channel(port)], Kind.JOBS_HELD)
    assert len(mailbox.mails) == 1
    (found,) = records.read_open_alerts(queue)
    assert (found.waiting, found.problem) == (0, refusal)
    assert refusal in caplog.text


def test_the_test_of_alerts_fails_where_a_recipient_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox, port = Mailbox(refused={"bob@example.com"}), free_port()
    monkeypatch.setenv("EPISODES_ALERT_SMTP_URL", f"smtp://{HOST}:{port}")
    monkeypatch.setenv("EPISODES_ALERT_EMAIL_TO", "ada@example.com, bob@example.com")
    monkeypatch.setenv("EPISODES_ALERT_EMAIL_FROM", "episodes@example.com")
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", HOST)
    with mail_server(port, mailbox):
        result = CliRunner().invoke(alerts.app, ["test"])
    assert result.exit_code == 1
    assert "failed: email: 127.0.0.1 refused bob@example.com (550 no such mailbox)" in result.output


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("webhook", b"HTTP/1.1 200 OK\r\nX-Drip: "),
        ("email", b"220 "),
    ],
)
def test_an_answer_that_drips_is_given_up(name: str, first: bytes) -> None:
    port = free_port()
    ports = Ports(mail=port, webhook=port)
    (channel,) = [each for each in ports.channels() if each.name == name]
    with dripping_server(port, first):
        began = time.monotonic()
        with pytest.raises(AlertNotDelivered, match="it took too long"):
            channel.send(a_message(), 0.1)
        assert time.monotonic() - began < 5


SLOW = "slow.example.com"


@pytest.fixture
def slow_resolution(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A resolver of names that answers long after everybody has given up, or at the test's end."""
    resolve, ended = socket.getaddrinfo, threading.Event()

    def slow(host: Any, *rest: Any, **options: Any) -> Any:
        if host in {SLOW, SLOW.encode()}:
            ended.wait(10)
            host = HOST
        return resolve(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield
    ended.set()


@pytest.mark.usefixtures("slow_resolution")
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["webhook", "slack", "email", "dead man"])
def test_a_name_that_is_not_resolved_is_given_up(name: str) -> None:
    settings = load_settings(
        alert_smtp_url=f"smtp://{SLOW}",
        alert_email_to="ada@example.com",
        alert_email_from="episodes@example.com",
        alert_slack_url=f"http://{SLOW}/",
        alert_webhook_url=f"http://{SLOW}/",
    )
    channels = {str(each.name): each for each in channels_of(settings)}
    send = partial(channels[name].send, a_message()) if name in channels else partial(ping, f"http://{SLOW}/")
    began = time.monotonic()
    with pytest.raises(AlertNotDelivered, match=r"took too long|ConnectTimeout"):
        send(0.1)
    assert time.monotonic() - began < 5


def test_the_own_name_is_given_up_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def slow(_host: str = "") -> str:
        if threading.current_thread().name in {"MainThread", "name resolution"}:  # the server asks as well
            ended.wait(10)
        return "late.example.com"

    monkeypatch.setattr(socket, "getfqdn", slow)
    mailbox, port = Mailbox(), free_port()
    try:
        with mail_server(port, mailbox):
            began = time.monotonic()
            mail_channel(port).send(a_message(), 0.5)
            assert time.monotonic() - began < 5
    finally:
        ended.set()
    assert len(mailbox.mails) == 1


def test_a_mail_server_is_found_by_its_name() -> None:
    mailbox, port = Mailbox(), free_port()
    with mail_server(port, mailbox):
        mail_channel(port, host="localhost").send(a_message(), 5)
    assert len(mailbox.mails) == 1


def test_of_an_answer_the_status_alone_is_read() -> None:
    ports = Ports()
    (channel,) = [each for each in ports.channels() if each.name == "webhook"]
    with dripping_server(ports.webhook, b"HTTP/1.1 200 OK\r\n\r\n"):
        channel.send(a_message(), 1)


@pytest.mark.parametrize("setting", ["alert_webhook_token", "alert_webhook_url", "alert_slack_url"])
@pytest.mark.parametrize("ending", [" x", "\nx", "\x00", "é"])
def test_a_secret_that_no_header_can_hold_is_refused_and_not_repeated(setting: str, ending: str) -> None:
    url = f"http://{HOST}/{SECRET}"
    settings = load_settings(
        **{"alert_webhook_url": url, setting: f"{url if setting.endswith('url') else SECRET}{ending}"}
    )
    with pytest.raises(BadSetting, match=f"EPISODES_{setting.upper()}") as refused:
        channels_of(settings)
    assert SECRET not in str(refused.value)


def test_the_end_of_line_of_a_secrets_file_is_no_part_of_it() -> None:
    ports, webhook = Ports(), Received()
    (channel,) = channels_of(
        load_settings(
            alert_webhook_url=f"http://{HOST}:{ports.webhook}/hook\n", alert_webhook_token=f"{SECRET}\n"
        )
    )
    with web_server(ports.webhook, webhook):
        channel.send(a_message(), 5)
    assert webhook.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_an_error_whose_text_may_hold_a_secret_is_named_by_its_type_alone() -> None:
    port = free_port()
    bad = Webhook(f"http://{HOST}:{port}/", f"{SECRET}\n", "development", "")
    with web_server(port, Received()), pytest.raises(AlertNotDelivered, match="LocalProtocolError") as failed:
        bad.send(a_message(), 2)
    assert SECRET not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize("setting", ["alert_slack_url", "alert_webhook_url", "dead_man_url"])
def test_in_production_no_secret_is_sent_unencrypted(setting: str) -> None:
    def use(url: str) -> None:
        settings = load_settings(environment="production", **{setting: url})
        channels_of(settings)
        dead_man_url(settings)

    use("https://hooks.example.com/x")
    use("http://localhost:9000/x")
    use("http://127.0.0.1:9000/x")
    with pytest.raises(BadSetting, match=f"EPISODES_{setting.upper()} is an http URL"):
        use("http://hooks.example.com/x")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alert_smtp_url": "smtp://host"}, "alerts by e-mail need"),
        ({"alert_email_to": "ada@example.com"}, "alerts by e-mail need"),
        (
            {"alert_smtp_url": "smtp://host", "alert_email_to": "ada", "alert_email_from": "a@b"},
            "'ada' is no e-mail address",
        ),
        (
            {"alert_smtp_url": "host:25", "alert_email_to": "a@b", "alert_email_from": "a@b"},
            "EPISODES_ALERT_SMTP_URL is no smtp or smtps URL with a host",
        ),
        ({"alert_slack_url": "file:///etc/passwd"}, "EPISODES_ALERT_SLACK_URL is no http or https URL"),
        ({"alert_webhook_url": SECRET}, "EPISODES_ALERT_WEBHOOK_URL is no http or https URL"),
        ({"alert_webhook_url": "http://h:99999/"}, "EPISODES_ALERT_WEBHOOK_URL is no http or https URL"),
    ],
)
def test_a_channel_that_is_not_whole_is_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(BadSetting, match=said) as refused:
        channels_of(load_settings(**settings))
    assert SECRET not in str(refused.value)

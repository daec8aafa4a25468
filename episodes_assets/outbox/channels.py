"""The ways in which a message reaches people: e-mail, Slack, and a webhook for everything else.

A channel sends one message, or says in one line why it could not. What a URL of a channel has beside its host
may be a secret, and is in no message, error or log. When something is sent, and how often, is `delivery.py`.
"""

import datetime as dt
import logging
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import httpx2

from episodes_assets.alerts.lifecycle import ChannelName, Event
from episodes_assets.errors import AlertNotDelivered, BadSetting
from episodes_assets.outbox.records import Message
from episodes_assets.settings import Settings

# Its log has the whole URL of each request.
logging.getLogger("httpx2").setLevel(logging.WARNING)

_HTTP, _SMTP = ("http", "https"), ("smtp", "smtps")
_PORTS = {"smtp": 25, "smtps": 465}
_WORDS = {Event.OPENED: "ALERT", Event.REMINDED: "STILL OPEN", Event.RESOLVED: "RESOLVED"}
_SLACK_SIGNS = {
    Event.OPENED: ":red_circle:",
    Event.REMINDED: ":red_circle:",
    Event.RESOLVED: ":white_check_mark:",
}
_LONGEST_SLACK = 2_900
_LONGEST_REASON = 200


class Channel(Protocol):
    """One way to reach people."""

    @property
    def name(self) -> ChannelName:
        """Which."""

    def send(self, message: Message, timeout: float) -> None:
        """Send a message.

        Args:
            message: What to send.
            timeout: The longest wait, in seconds, for each answer of the other side.

        Raises:
            AlertNotDelivered: If it was not accepted, or nobody knows whether it was.
        """


def subject_of(message: Message, environment: str) -> str:
    """The first line of a message."""
    return f"[episodes {environment}] {_WORDS[message.event]}: {message.summary}"


def text_of(message: Message, dashboard_url: str) -> str:
    """A message as text, without its first line."""
    lines = [] if message.event is Event.RESOLVED else [f"What to do: {message.hint}.", ""]
    if message.detail and message.event is not Event.RESOLVED:
        lines += [message.detail, ""]
    lines.append(f"Open since {message.opened_at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC ({message.key}).")
    if message.event is Event.RESOLVED:
        lines.append(f"Resolved at {message.created_at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC.")
    if dashboard_url:
        lines.append(f"{dashboard_url.rstrip('/')}/fleet")
    return "\n".join(lines) + "\n"


class Webhook:
    """Posts each message as JSON to a URL; answers of 200 to 299 accept it.

    The header `Idempotency-Key` and the field `id` are the same when the same message is sent again, as it is
    after an answer that was lost.

    Args:
        url: Where to.
        token: Sent as a bearer token; None for none.
        environment: Of this system.
        dashboard_url: For the link; empty for none.
    """

    name = ChannelName.WEBHOOK

    def __init__(self, url: str, token: str | None, environment: str, dashboard_url: str) -> None:
        self._url = url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._environment = environment
        self._dashboard_url = dashboard_url

    def send(self, message: Message, timeout: float) -> None:
        """Post it."""
        body = {
            "id": str(message.message_uid),
            "event": message.event.value,
            "alert": message.alert_id,
            "key": message.key,
            "kind": message.kind,
            "severity": message.severity,
            "environment": self._environment,
            "summary": message.summary,
            "detail": message.detail,
            "what_to_do": message.hint,
            "opened_at": message.opened_at.astimezone(dt.UTC).isoformat(),
            "at": message.created_at.astimezone(dt.UTC).isoformat(),
            "link": f"{self._dashboard_url.rstrip('/')}/fleet" if self._dashboard_url else None,
        }
        headers = {**self._headers, "Idempotency-Key": str(message.message_uid)}
        _post(self.name, self._url, body, headers, timeout)


class Slack:
    """Posts each message to an incoming webhook of Slack, which knows no idempotency.

    Args:
        url: Of the incoming webhook.
        environment: Of this system.
        dashboard_url: For the link; empty for none.
    """

    name = ChannelName.SLACK

    def __init__(self, url: str, environment: str, dashboard_url: str) -> None:
        self._url = url
        self._environment = environment
        self._dashboard_url = dashboard_url

    def send(self, message: Message, timeout: float) -> None:
        """Post it."""
        head = _escaped_for_slack(subject_of(message, self._environment))
        text = _escaped_for_slack(text_of(message, self._dashboard_url))
        whole = f"{_SLACK_SIGNS[message.event]} *{head}*\n{text}"[:_LONGEST_SLACK]
        _post(self.name, self._url, {"text": whole}, {}, timeout)


class Email:
    """Sends each message through a mail server; all about one alert are one conversation.

    Args:
        url: The server's, `smtp` or `smtps`, with user and password where it wants them.
        sender: From whom.
        recipients: To whom.
        environment: Of this system.
        dashboard_url: For the link; empty for none.
    """

    name = ChannelName.EMAIL

    def __init__(
        self, url: SplitResult, sender: str, recipients: list[str], environment: str, dashboard_url: str
    ) -> None:
        self._url = url
        self._sender = sender
        self._recipients = recipients
        self._environment = environment
        self._dashboard_url = dashboard_url

    def send(self, message: Message, timeout: float) -> None:
        """Send it to all recipients in one transaction."""
        try:
            with self._connect(timeout) as server:
                self._log_in(server)
                server.send_message(self._compose(message), self._sender, self._recipients)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise AlertNotDelivered(
                f"{self.name}: {self._url.hostname} did not accept it ({_reason(error)})"
            ) from error

    def _connect(self, timeout: float) -> smtplib.SMTP:
        host, scheme = self._url.hostname or "", self._url.scheme
        port = self._url.port or _PORTS[scheme]
        if scheme == "smtps":
            return smtplib.SMTP_SSL(host, port, timeout=timeout, context=ssl.create_default_context())
        return smtplib.SMTP(host, port, timeout=timeout)

    def _log_in(self, server: smtplib.SMTP) -> None:
        server.ehlo_or_helo_if_needed()
        has_password = self._url.password is not None
        if self._url.scheme == "smtp" and (has_password or server.has_extn("starttls")):
            server.starttls(context=ssl.create_default_context())
        if has_password:
            server.login(unquote(self._url.username or ""), unquote(self._url.password or ""))

    def _compose(self, message: Message) -> EmailMessage:
        domain = parseaddr(self._sender)[1].rpartition("@")[2]
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._recipients)
        mail["Subject"] = subject_of(message, self._environment)
        mail["Date"] = format_datetime(message.created_at.astimezone(dt.UTC))
        # The same when the same message is sent again, by which mail programs recognise it.
        mail["Message-ID"] = f"<{message.message_uid}@{domain}>"
        mail["References"] = f"<{self._environment}.alert.{message.alert_id}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(text_of(message, self._dashboard_url))
        return mail


def _post(
    name: ChannelName, url: str, body: Mapping[str, Any], headers: Mapping[str, str], timeout: float
) -> None:
    host = urlsplit(url).hostname
    try:
        # A redirect would lead to a host that nobody has allowed.
        response = httpx2.post(url, json=body, headers=dict(headers), timeout=timeout, follow_redirects=False)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise AlertNotDelivered(f"{name}: {host} did not answer ({_reason(error, url)})") from error
    if not response.is_success:
        raise AlertNotDelivered(f"{name}: {host} answered {response.status_code}")


def ping(url: str, timeout: float) -> None:
    """Ask a dead man's URL, so that whoever is behind it knows that this system is watched.

    Raises:
        AlertNotDelivered: If it does not answer with success.
    """
    host = urlsplit(url).hostname
    try:
        response = httpx2.get(url, timeout=timeout, follow_redirects=False)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise AlertNotDelivered(f"{host} did not answer ({_reason(error, url)})") from error
    if not response.is_success:
        raise AlertNotDelivered(f"{host} answered {response.status_code}")


def _reason(error: Exception, url: str = "") -> str:
    """Why, in one line without the URL."""
    text = " ".join(str(error).split())
    if url and (urlsplit(url).path.strip("/") or "\0") in text:
        text = ""
    return (text or type(error).__name__)[:_LONGEST_REASON]


def _escaped_for_slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def channels_of(settings: Settings) -> list[Channel]:
    """The channels that the settings name.

    Raises:
        BadSetting: If one is not whole, or its URL cannot be used.
    """
    found: list[Channel] = []
    environment, link = settings.environment, settings.dashboard_url
    if settings.alert_smtp_url or settings.alert_email_to:
        found.append(_email(settings))
    if settings.alert_slack_url:
        url = _checked("alert_slack_url", settings.alert_slack_url.get_secret_value(), _HTTP)
        found.append(Slack(url.geturl(), environment, link))
    if settings.alert_webhook_url:
        url = _checked("alert_webhook_url", settings.alert_webhook_url.get_secret_value(), _HTTP)
        token = settings.alert_webhook_token
        secret = None if token is None else token.get_secret_value()
        found.append(Webhook(url.geturl(), secret, environment, link))
    return found


def dead_man_url(settings: Settings) -> str | None:
    """The URL to ask while all is watched; None if there is none.

    Raises:
        BadSetting: If it cannot be used.
    """
    if settings.dead_man_url is None:
        return None
    return _checked("dead_man_url", settings.dead_man_url.get_secret_value(), _HTTP).geturl()


def _email(settings: Settings) -> Email:
    recipients = [each.strip() for each in settings.alert_email_to.split(",") if each.strip()]
    if settings.alert_smtp_url is None or not recipients or not settings.alert_email_from:
        raise BadSetting(
            "alerts by e-mail need EPISODES_ALERT_SMTP_URL, EPISODES_ALERT_EMAIL_TO and "
            "EPISODES_ALERT_EMAIL_FROM, and one of them is not set",
            "set all three, or none",
        )
    for address in (*recipients, settings.alert_email_from):
        if "@" not in parseaddr(address)[1] or not address.isascii() or "\n" in address:
            raise BadSetting(f"{address!r} is no e-mail address for alerts", "spell it name@example.com")
    url = _checked("alert_smtp_url", settings.alert_smtp_url.get_secret_value(), _SMTP)
    return Email(url, settings.alert_email_from, recipients, settings.environment, settings.dashboard_url)


def _checked(setting: str, url: str, schemes: tuple[str, ...]) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        # It may have a password, so nothing of it is repeated.
        raise BadSetting(
            f"EPISODES_{setting.upper()} is no {' or '.join(schemes)} URL with a host",
            f"spell it {schemes[-1]}://host/…",
        )
    return parts

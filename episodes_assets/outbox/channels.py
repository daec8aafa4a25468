"""The ways in which a message reaches people: e-mail, Slack, and a webhook for everything else.

A channel sends one message, or says in one line why it could not. What a URL of a channel has beside its host
may be a secret, and so is a token: neither is in a message, error or log. An attempt has a deadline, whatever
the other side does, and of its answer the status alone is read. When something is sent, and how often, is
`delivery.py`.
"""

import asyncio
import datetime as dt
import ipaddress
import logging
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import SplitResult, unquote, urlsplit

import httpx2
from pydantic import SecretStr

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
# Of the longest waits for an answer that an attempt may take altogether, a mail's about six answers too.
ATTEMPT_TIMEOUTS = 3
# What can be in a header and in a URL. A blank or an end of line is a slip, and errors would repeat it.
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# The texts of these name addresses, hosts and certificates, and nothing that was sent.
_HARMLESS = (httpx2.ConnectError, httpx2.TimeoutException)


class Channel(Protocol):
    """One way to reach people."""

    @property
    def name(self) -> ChannelName:
        """Which."""

    def send(self, message: Message, timeout: float) -> str:
        """Send a message, within `ATTEMPT_TIMEOUTS` times the timeout.

        Args:
            message: What to send.
            timeout: The longest wait, in seconds, for each answer of the other side.

        Returns:
            Whom it does not reach although it was accepted, and why, in one line; empty if it reaches all.

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

    def send(self, message: Message, timeout: float) -> str:
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
        return ""


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

    def send(self, message: Message, timeout: float) -> str:
        """Post it."""
        head = _escaped_for_slack(subject_of(message, self._environment))
        text = _escaped_for_slack(text_of(message, self._dashboard_url))
        whole = f"{_SLACK_SIGNS[message.event]} *{head}*\n{text}"[:_LONGEST_SLACK]
        _post(self.name, self._url, {"text": whole}, {}, timeout)
        return ""


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

    def send(self, message: Message, timeout: float) -> str:
        """Send it to all recipients in one transaction."""
        host = self._url.hostname
        deadline = _Deadline(ATTEMPT_TIMEOUTS * timeout)
        try:
            with deadline:
                server = self._connect(timeout, deadline)
                try:
                    self._log_in(server)
                    refused = server.send_message(self._compose(message), self._sender, self._recipients)
                    # It is accepted now, whatever becomes of the farewell.
                    with suppress(smtplib.SMTPException, OSError):
                        server.quit()
                finally:
                    server.close()
        except (smtplib.SMTPException, OSError, ValueError) as error:
            said = "it took too long" if deadline.is_over else _reason_of_mail(error)
            raise AlertNotDelivered(f"{self.name}: {host} did not accept it ({said})") from None
        return f"{self.name}: {host} refused {_name_refused(refused)}" if refused else ""

    def _connect(self, timeout: float, deadline: "_Deadline") -> smtplib.SMTP:
        host, scheme = self._url.hostname or "", self._url.scheme
        port = self._url.port or _PORTS[scheme]
        if scheme == "smtps":
            return _SmtpsServer(host, port, deadline, timeout=timeout, context=ssl.create_default_context())
        return _SmtpServer(host, port, deadline, timeout=timeout)

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


class _Deadline:
    """Ends a conversation with a mail server, also one that sends a byte at a time.

    Args:
        seconds: How long the block may last.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._server: smtplib.SMTP | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def watch(self, server: smtplib.SMTP) -> None:
        """Whose conversation it is.

        Raises:
            SMTPServerDisconnected: If it is over already.
        """
        self._server = server
        self.require_time()

    def require_time(self) -> None:
        """Check that there is time left.

        Raises:
            SMTPServerDisconnected: If there is none.
        """
        if self.is_over:
            raise smtplib.SMTPServerDisconnected("it took too long")

    def _end(self) -> None:
        self.is_over = True
        connection = getattr(self._server, "sock", None)
        if isinstance(connection, socket.socket):
            with suppress(OSError):
                # Of the TLS connection too: whoever reads it learns that it has ended.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _SmtpServer(smtplib.SMTP):
    """A mail server with which a conversation has a deadline, its name's resolution included."""

    def __init__(self, host: str, port: int, deadline: _Deadline, **options: Any) -> None:  # noqa: ANN401
        self._deadline = deadline
        super().__init__(host, port, **options)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """A connection to the first of the host's addresses that accepts one; over TLS its name counts."""
        try:
            found = _look_up(host, port, type=socket.SOCK_STREAM).result(timeout)
        except TimeoutError:
            raise TimeoutError("the resolution of its name took too long") from None
        failed: OSError | None = None
        for *_, address in found:
            self._deadline.require_time()
            try:
                connected: socket.socket = super()._get_socket(str(address[0]), port, timeout)  # type: ignore[misc]
            except OSError as error:
                failed = error
            else:
                return connected
        raise failed or OSError("its name has no address")

    def getreply(self) -> tuple[int, bytes]:
        """The next answer; the first is read while it connects."""
        self._deadline.watch(self)
        return super().getreply()


class _SmtpsServer(_SmtpServer, smtplib.SMTP_SSL):
    """The same over TLS from the beginning."""


def _look_up(*what: Any, **options: Any) -> "Future[list[Any]]":  # noqa: ANN401  as `getaddrinfo` has them
    """Resolve a host's name in a thread that nobody has to wait for.

    How long it takes is the resolver's to say, often more than half a minute, and nothing can end it. The
    threads of an executor would keep whoever gives up: the event loop waits for them, and so does the end
    of the process.

    Returns:
        What `socket.getaddrinfo` answers.
    """
    found: Future[list[Any]] = Future()
    # Begun, so that whoever gives up cannot cancel it: a cancelled one could not take the answer.
    found.set_running_or_notify_cancel()

    def resolve() -> None:
        try:
            found.set_result(socket.getaddrinfo(*what, **options))
        except Exception as error:  # noqa: BLE001  it is raised where the answer is waited for
            found.set_exception(error)

    threading.Thread(target=resolve, name="name resolution", daemon=True).start()
    return found


class _EventLoop(asyncio.SelectorEventLoop):
    """One that does not wait for the resolution of a name that is given up."""

    async def getaddrinfo(self, *what: Any, **options: Any) -> list[Any]:  # noqa: ANN401
        """Resolve a name; cancelled, it ends at once."""
        return await asyncio.wrap_future(_look_up(*what, **options), loop=self)


def _reason_of_mail(error: Exception) -> str:
    """Why a mail was not accepted, in one line without the password."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            return f"it refused {_name_refused(error.recipients)}"
        case smtplib.SMTPAuthenticationError():
            # Its text may repeat what it was sent.
            return f"it refused the user and the password: {error.smtp_code}"
        case smtplib.SMTPResponseException():
            return f"{error.smtp_code} {_text_of_answer(error.smtp_error)}"
        case smtplib.SMTPNotSupportedError() | smtplib.SMTPServerDisconnected():
            return _in_one_line(str(error))
        case OSError() if not isinstance(error, smtplib.SMTPException):
            return _in_one_line(str(error)) or type(error).__name__
    return type(error).__name__


def _name_refused(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return _in_one_line(
        ", ".join(f"{address} ({code} {_text_of_answer(said)})" for address, (code, said) in refused.items())
    )


def _text_of_answer(said: bytes | str) -> str:
    return _in_one_line(said.decode(errors="replace") if isinstance(said, bytes) else said)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_REASON]


def _post(
    name: ChannelName, url: str, body: Mapping[str, Any], headers: Mapping[str, str], timeout: float
) -> None:
    _ask(f"{name}: ", "POST", url, timeout, json=body, headers=dict(headers))


def ping(url: str, timeout: float) -> None:
    """Ask a dead man's URL, so that whoever is behind it knows that this system is watched.

    Raises:
        AlertNotDelivered: If it does not answer with success.
    """
    _ask("", "GET", url, timeout)


def _ask(name: str, method: str, url: str, timeout: float, **request: Any) -> None:  # noqa: ANN401
    """Send a request, and read the status of its answer and no more.

    Raises:
        AlertNotDelivered: If that is not a success.
    """
    host = urlsplit(url).hostname
    try:
        with asyncio.Runner(loop_factory=_EventLoop) as runner:
            status = runner.run(_status_of(method, url, timeout, **request))
    except TimeoutError:
        raise AlertNotDelivered(f"{name}{host} did not answer (it took too long)") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        said = _in_one_line(str(error)) if isinstance(error, _HARMLESS) else ""
        raise AlertNotDelivered(f"{name}{host} did not answer ({said or type(error).__name__})") from None
    if not 200 <= status < 300:
        raise AlertNotDelivered(f"{name}{host} answered {status}")


async def _status_of(method: str, url: str, timeout: float, **request: Any) -> int:  # noqa: ANN401
    # Each wait is bounded by httpx2, and all of them together here.
    async with asyncio.timeout(ATTEMPT_TIMEOUTS * timeout):
        # A redirect would lead to a host that nobody has allowed.
        async with (
            httpx2.AsyncClient(timeout=timeout, follow_redirects=False) as client,
            client.stream(method, url, **request) as response,
        ):
            return response.status_code


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
        url = _checked("alert_slack_url", settings.alert_slack_url, _HTTP, settings)
        found.append(Slack(url.geturl(), environment, link))
    if settings.alert_webhook_url:
        url = _checked("alert_webhook_url", settings.alert_webhook_url, _HTTP, settings)
        token = settings.alert_webhook_token
        secret = None if token is None else _printable("alert_webhook_token", token)
        found.append(Webhook(url.geturl(), secret, environment, link))
    return found


def dead_man_url(settings: Settings) -> str | None:
    """The URL to ask while all is watched; None if there is none.

    Raises:
        BadSetting: If it cannot be used.
    """
    if settings.dead_man_url is None:
        return None
    return _checked("dead_man_url", settings.dead_man_url, _HTTP, settings).geturl()


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
    url = _checked("alert_smtp_url", settings.alert_smtp_url, _SMTP, settings)
    return Email(url, settings.alert_email_from, recipients, settings.environment, settings.dashboard_url)


def _printable(setting: str, secret: SecretStr) -> str:
    """A secret without the end of line that its file may have; nothing of it is repeated."""
    text = secret.get_secret_value().strip()
    if not _PRINTABLE.fullmatch(text):
        raise BadSetting(
            f"EPISODES_{setting.upper()} is empty, or has blanks, line ends or letters beyond ASCII in it",
            "copy it again; in a URL, encode them with %",
        )
    return text


def _checked(setting: str, secret: SecretStr, schemes: tuple[str, ...], settings: Settings) -> SplitResult:
    url = _printable(setting, secret)
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
    if settings.is_production and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise BadSetting(
            f"EPISODES_{setting.upper()} is an http URL: in production its secrets would be sent unencrypted",
            "use https",
        )
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""E-mail: a message as a mail, and the conversation with a mail server (SMTP), which has a deadline.

A password is in no message, error or log. What every channel promises is in `channels.py`; which server and
whom to write to, in `configuration.py`.
"""

import datetime as dt
import smtplib
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, unquote

from episodes_assets.alerts.lifecycle import ChannelName
from episodes_assets.errors import AlertNotDelivered
from episodes_assets.outbox import channels
from episodes_assets.outbox.messages import Message

_PORTS = {"smtp": 25, "smtps": 465}


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
        deadline = _Deadline(channels.ATTEMPT_TIMEOUTS * timeout)
        try:
            with deadline:
                server = self._connect(timeout, deadline)
                try:
                    self._log_in(server)
                    refused = server.send_message(self._compose(message), self._sender, self._recipients)
                    # The server has accepted it, whether or not it answers QUIT.
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
        options: dict[str, Any] = {"timeout": timeout, "local_hostname": _own_name(timeout)}
        if scheme == "smtps":
            return _SmtpsServer(host, port, deadline, context=ssl.create_default_context(), **options)
        return _SmtpServer(host, port, deadline, **options)

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
        mail["Subject"] = channels.subject_of(message, self._environment)
        mail["Date"] = format_datetime(message.created_at.astimezone(dt.UTC))
        # The same when the same message is sent again, by which mail programs recognise it.
        mail["Message-ID"] = f"<{message.message_uid}@{domain}>"
        mail["References"] = f"<{self._environment}.alert.{message.alert_id}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(channels.text_of(message, self._dashboard_url))
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
            found = channels.resolving(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM).result(
                timeout
            )
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


def _own_name(timeout: float) -> str:
    """How this machine introduces itself: its name if it has a whole one, else an address (RFC 5321, 4.1.3).

    By itself smtplib would ask the resolver, without a bound.
    """
    with suppress(OSError):  # a timeout among them
        name = channels.resolving(socket.getfqdn).result(timeout)
        if "." in name:
            return name
    return "[127.0.0.1]"


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
            return channels.in_one_line(str(error))
        case OSError() if not isinstance(error, smtplib.SMTPException):
            return channels.in_one_line(str(error)) or type(error).__name__
    return type(error).__name__


def _name_refused(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return channels.in_one_line(
        ", ".join(f"{address} ({code} {_text_of_answer(said)})" for address, (code, said) in refused.items())
    )


def _text_of_answer(said: bytes | str) -> str:
    return channels.in_one_line(said.decode(errors="replace") if isinstance(said, bytes) else said)

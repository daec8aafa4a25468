"""Channels, by which a message reaches people: what all of them have in common, and those over HTTP.

Over HTTP there are Slack and a webhook for everything else; e-mail is `mail.py`. A channel sends one message,
or says in one line why it could not. What a URL of a channel has beside its host may be a secret, and so is a
token: neither is in a message, error or log. An attempt has a deadline, whatever the other side or the
resolver of its name does, and of an answer over HTTP the status alone is read.

When something is sent, and how often, is `delivery.py`; which channels there are, `configuration.py`.
"""

import asyncio
import datetime as dt
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx2

from episodes_assets import failures
from episodes_assets.alerts.lifecycle import ChannelName, Event
from episodes_assets.errors import AlertNotDelivered
from episodes_assets.outbox.messages import Message

T = TypeVar("T")

# Its log has the whole URL of each request.
logging.getLogger("httpx2").setLevel(logging.WARNING)

_WORDS = {Event.OPENED: "ALERT", Event.REMINDED: "STILL OPEN", Event.RESOLVED: "RESOLVED"}
_SLACK_SIGNS = {
    Event.OPENED: ":red_circle:",
    Event.REMINDED: ":red_circle:",
    Event.RESOLVED: ":white_check_mark:",
}
_LONGEST_SLACK = 2_900
_LONGEST_REASON = 200
# An attempt may take so many times the timeout of one answer, also where it waits for more (a mail: six).
ATTEMPT_TIMEOUTS = 3
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


def resolving(ask: Callable[..., T], *what: Any, **options: Any) -> "Future[T]":  # noqa: ANN401
    """Ask the resolver of names in a thread that nobody has to wait for.

    How long it takes is the resolver's to say, often more than half a minute, and nothing can end it. The
    threads of an executor would keep whoever gives up: the event loop waits for them, and so does the end
    of the process.

    Args:
        ask: `socket.getaddrinfo` or another function that asks the resolver.
        what: Its arguments.
        options: Those that are named.

    Returns:
        What it answers.
    """
    found: Future[T] = Future()
    # Begun, so that whoever gives up cannot cancel it: a cancelled one could not take the answer.
    found.set_running_or_notify_cancel()

    def resolve() -> None:
        try:
            found.set_result(ask(*what, **options))
        except Exception as error:  # noqa: BLE001  it is raised where the answer is waited for
            found.set_exception(error)

    threading.Thread(target=resolve, name="name resolution", daemon=True).start()
    return found


class _EventLoop(asyncio.SelectorEventLoop):
    """One that does not wait for the resolution of a name that is given up."""

    async def getaddrinfo(self, *what: Any, **options: Any) -> list[Any]:  # noqa: ANN401
        """Resolve a name; cancelled, it ends at once."""
        return await asyncio.wrap_future(resolving(socket.getaddrinfo, *what, **options), loop=self)


def in_one_line(text: str) -> str:
    """A reason without line ends, and not longer than a line."""
    return failures.shorten(" ".join(text.split()), _LONGEST_REASON)


def _post(
    name: ChannelName, url: str, body: Mapping[str, Any], headers: Mapping[str, str], timeout: float
) -> None:
    _ask(f"{name}: ", "POST", url, timeout, json=body, headers=dict(headers))


def ping(url: str, timeout: float) -> None:
    """Ping a dead man's switch, which alerts when pings stop: this system is watched.

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
        said = in_one_line(str(error)) if isinstance(error, _HARMLESS) else ""
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

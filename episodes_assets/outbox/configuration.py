"""Which channels the settings name, and what is refused in them.

A URL or a token of a channel may be a secret: nothing of it is repeated in an error.
"""

import ipaddress
import re
from email.utils import parseaddr
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from episodes_assets.errors import BadSetting
from episodes_assets.outbox.channels import Channel, Slack, Webhook
from episodes_assets.outbox.mail import Email
from episodes_assets.settings import Settings

_HTTP, _SMTP = ("http", "https"), ("smtp", "smtps")
# What can be in a header and in a URL. A blank or an end of line is a slip, and errors would repeat it.
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


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

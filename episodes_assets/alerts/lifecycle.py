"""What follows from the alerts that are open now and from what was told before: a pure function.

Each channel is told of an alert once when it is opened, again each day while it stays open, and once when it
has ended. The outbox (`outbox/`) keeps what is told; which alerts are open is `conditions.py`.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from episodes_assets.alerts.conditions import Alert, Assessment, Kind

FIRST_PAUSE = dt.timedelta(seconds=15)
LONGEST_PAUSE = dt.timedelta(minutes=15)


class ChannelName(StrEnum):
    """A way to reach people."""

    EMAIL = "email"
    SLACK = "slack"
    WEBHOOK = "webhook"


class Event(StrEnum):
    """What is told of an alert."""

    OPENED = "opened"
    REMINDED = "reminded"
    RESOLVED = "resolved"


class State(StrEnum):
    """What becomes of an alert at this moment."""

    PENDING = "pending"  # not for long enough to tell anybody
    OPEN = "open"
    RESOLVED = "resolved"
    FORGOTTEN = "forgotten"  # it ended before anybody was to be told


@dataclass(frozen=True)
class LastMessage:
    """The last message to a channel about an alert.

    Attributes:
        event: What it tells.
        delivered_at: When it was delivered; None while it was not.
    """

    event: Event
    delivered_at: dt.datetime | None


@dataclass(frozen=True)
class Recorded:
    """An alert that is on record and has not ended.

    Attributes:
        alert_id: Its id.
        key: Identifies it while it is open.
        kind: What it is about.
        first_seen_at: Since when it is observed.
        opened_at: Since when people are told of it; None while it is pending.
        told: The last message to each channel that has one.
    """

    alert_id: int
    key: str
    kind: Kind
    first_seen_at: dt.datetime
    opened_at: dt.datetime | None
    told: Mapping[ChannelName, LastMessage] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What becomes of one alert.

    Attributes:
        recorded: It as it is on record; None for a new one.
        alert: It as it is now; None if it has ended.
        state: Its state from now on.
        messages: What is to be told to which channels.
    """

    recorded: Recorded | None
    alert: Alert | None
    state: State
    messages: Mapping[ChannelName, Event] = field(default_factory=dict)


def decide(
    recorded: Iterable[Recorded],
    assessment: Assessment,
    channels: Collection[ChannelName],
    now: dt.datetime,
    remind_after: dt.timedelta,
) -> list[Decision]:
    """What becomes of each alert that is on record or was observed.

    An alert of a kind that was not observed is left as it is.

    Args:
        recorded: All alerts on record that have not ended.
        assessment: The alerts that are open by what was observed.
        channels: Those that are configured. A new one is told of alerts that were open before.
        now: The time.
        remind_after: How long after the last message a channel is told again.
    """
    known = list(recorded)
    decisions = [_decide_on(each, assessment, channels, now, remind_after) for each in known]
    keys = {each.key for each in known}
    begun = [_begin(alert, channels) for key, alert in assessment.alerts.items() if key not in keys]
    return [*(each for each in decisions if each is not None), *begun]


def _begin(alert: Alert, channels: Collection[ChannelName]) -> Decision:
    if alert.grace:
        return Decision(None, alert, State.PENDING)
    return Decision(None, alert, State.OPEN, dict.fromkeys(channels, Event.OPENED))


def _decide_on(
    recorded: Recorded,
    assessment: Assessment,
    channels: Collection[ChannelName],
    now: dt.datetime,
    remind_after: dt.timedelta,
) -> Decision | None:
    alert = assessment.alerts.get(recorded.key)
    if alert is None:
        if recorded.kind not in assessment.known:
            return None
        if recorded.opened_at is None:
            return Decision(recorded, None, State.FORGOTTEN)
        # Also to channels that are not configured here any more: another process may have them.
        return Decision(recorded, None, State.RESOLVED, dict.fromkeys(recorded.told, Event.RESOLVED))
    if recorded.opened_at is None and now - recorded.first_seen_at < alert.grace:
        return Decision(recorded, alert, State.PENDING)
    return Decision(recorded, alert, State.OPEN, dict(_messages(recorded, channels, now, remind_after)))


def _messages(
    recorded: Recorded, channels: Collection[ChannelName], now: dt.datetime, remind_after: dt.timedelta
) -> Iterator[tuple[ChannelName, Event]]:
    for channel in channels:
        told = recorded.told.get(channel)
        if told is None:
            yield channel, Event.OPENED
        # While a message waits to be delivered, no other one is added: it tells the same.
        elif told.delivered_at is not None and now - told.delivered_at >= remind_after:
            yield channel, Event.REMINDED


def pause_after(attempts: int) -> dt.timedelta:
    """How long after a failed attempt the next one comes: exponential backoff.

    Args:
        attempts: How many there were, this one included.
    """
    doubled: dt.timedelta = FIRST_PAUSE * 2 ** min(attempts - 1, 10)
    return min(doubled, LONGEST_PAUSE)

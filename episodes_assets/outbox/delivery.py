"""Working the outbox: what is due is sent over its channel, within a bounded time, and tried again later.

Delivery is at least once. A message is marked as delivered after its receiver has accepted it, so it is sent
again if that answer is lost or this process is killed before it has noted it; then it has the same id
(`Idempotency-Key`, `Message-ID`). Several processes may work the outbox at once: a message that is claimed is
left alone by the others. Which message is due is decided in `messages.py`; how it is sent is `channels.py`.
"""

import datetime as dt
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from episodes_assets.alerts.conditions import Assessment
from episodes_assets.alerts.lifecycle import Decision, Event, State, pause_after
from episodes_assets.errors import AlertNotDelivered
from episodes_assets.outbox import messages, records
from episodes_assets.outbox.messages import Message
from episodes_assets.postgres.connect import Connection

if TYPE_CHECKING:
    from episodes_assets.outbox.channels import Channel

_LOG = logging.getLogger(__name__)
# After this time an attempt whose end is not recorded counts as interrupted. None lasts nearly so long: it is
# at most `ATTEMPT_TIMEOUTS` times the timeout.
LEASE = dt.timedelta(minutes=3)


@dataclass(frozen=True)
class Budget:
    """How long a pass over the outbox may take.

    Attributes:
        seconds: No message is begun later than this.
        timeout: The longest wait for an answer, in seconds.
    """

    seconds: float
    timeout: float


# A sensor's tick keeps others waiting; the web server's watch has a thread of its own.
OF_A_TICK = Budget(seconds=5.0, timeout=3.0)
OF_THE_WATCH = Budget(seconds=30.0, timeout=10.0)


@dataclass(frozen=True)
class Delivered:
    """What a pass over the outbox did.

    Attributes:
        sent: Messages that were accepted.
        problems: Why others were not, and whom those that were do not reach, one line each.
    """

    sent: int
    problems: Sequence[str]


def deliver(connection: Connection, channels: Sequence["Channel"], budget: Budget) -> Delivered:
    """Send what is due, the oldest first.

    After a failure a channel is left alone until the next pass; a message that its receiver refuses for good
    waits longer each time, and keeps back only what follows it about the same alert, and for about half an
    hour what follows about later alerts of the same key.

    Args:
        connection: To `queue`, in autocommit mode.
        channels: Those that are configured.
        budget: How long it may take.
    """
    usable = {channel.name: channel for channel in channels}
    sent, problems = 0, []
    deadline = time.monotonic() + budget.seconds
    while usable and time.monotonic() < deadline:
        message = messages.claim_message(connection, list(usable), records.read_clock(connection), LEASE)
        if message is None:
            break
        try:
            problem = usable[message.channel].send(message, budget.timeout)
        except AlertNotDelivered as error:
            _note_failure(connection, message, str(error))
            problems.append(str(error))
            del usable[message.channel]
        except Exception as error:  # noqa: BLE001
            # A defect, such as a text that a channel cannot express. Raised, it would end each pass at this
            # message, the oldest, and no other one would ever be sent. Its text may repeat a secret.
            problem = f"{message.channel}: the message cannot be sent ({type(error).__name__})"
            _note_failure(connection, message, problem)
            problems.append(problem)
        else:
            messages.record_delivery(connection, message, records.read_clock(connection), problem)
            sent += 1
            if problem:
                # It is not sent again: those whom it reached would get it twice.
                _LOG.warning("the message that %s is %s: %s", message.key, message.event, problem)
                problems.append(problem)
    return Delivered(sent, problems)


def _note_failure(connection: Connection, message: Message, problem: str) -> None:
    _LOG.warning("the message that %s is %s is not delivered: %s", message.key, message.event, problem)
    retry_at = records.read_clock(connection) + pause_after(message.attempts)
    messages.record_failure(connection, message, problem, retry_at)


def alert_people(
    connection: Connection,
    assessment: Assessment,
    channels: Sequence["Channel"],
    *,
    remind_after: dt.timedelta,
    evaluator: str | None,
    budget: Budget,
) -> tuple[list[Decision], Delivered]:
    """Record which alerts are open, and send what is due.

    Args:
        connection: To `queue`, in autocommit mode.
        assessment: The alerts that are open by what was observed.
        channels: Those that are configured; with none, alerts are recorded all the same.
        remind_after: How long after the last message a channel is told again.
        evaluator: Who decides, one of `records.Evaluator`; None if that is not to count as having looked.
        budget: How long sending may take.
    """
    names = [channel.name for channel in channels]
    now = records.read_clock(connection)
    decisions = records.evaluate(connection, assessment, names, now, remind_after, evaluator)
    for each in decisions:
        _log(each)
    return decisions, deliver(connection, channels, budget)


def _log(decision: Decision) -> None:
    """Write what changes to this process's log, which has it also where no channel is configured."""
    is_new = decision.recorded is None or decision.recorded.opened_at is None
    if decision.state is State.OPEN and is_new and decision.alert is not None:
        _LOG.warning("alert %s: %s", Event.OPENED, decision.alert.summary)
    elif decision.state is State.RESOLVED and decision.recorded is not None:
        _LOG.warning("alert %s: %s", Event.RESOLVED, decision.recorded.key)

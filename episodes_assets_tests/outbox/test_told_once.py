"""Whatever is observed, and whatever fails: each alert is opened once and resolved once, on each channel."""

import datetime as dt
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import hypothesis
import pytest
from hypothesis import strategies as st

from episodes_assets.alerts.conditions import Alert, Assessment, Kind, Severity
from episodes_assets.alerts.lifecycle import ChannelName, Event, pause_after
from episodes_assets.outbox import messages, records
from episodes_assets.outbox.messages import Message
from episodes_assets.postgres.connect import Connection

BEGIN = dt.datetime(2018, 3, 1, tzinfo=dt.UTC)
DAILY = dt.timedelta(hours=24)
LEASE = dt.timedelta(minutes=3)
SENSOR_S = (Kind.JOBS_HELD, Kind.RESULTS_AWAY)  # the last one has a grace
WEB_SERVER_S = (Kind.DAEMON_SILENT,)


def alert(kind: Kind) -> Alert:
    return Alert(kind, "", Severity.ERROR, f"{kind} is so", "", "repair it")


@dataclass(frozen=True)
class Look:
    """One look at the system, and what happens to the messages that are due after it.

    Attributes:
        seconds: Since the one before.
        by: The kinds that whoever looks knows of.
        known: Those of them that it can observe this time.
        true: Those that are so.
        configured: The channels that it has.
        fates: Of each attempt to deliver: whether it is refused, accepted, or accepted without anybody here
            learning of it, as when the process is killed then.
    """

    seconds: int
    by: tuple[Kind, ...]
    known: frozenset[Kind]
    true: frozenset[Kind]
    configured: tuple[ChannelName, ...]
    fates: Sequence[str]


LOOKS = st.sampled_from([SENSOR_S, SENSOR_S, WEB_SERVER_S]).flatmap(
    lambda by: st.builds(
        Look,
        seconds=st.sampled_from([0, 5, 10, 30, 200, 3_600, 90_000]),
        by=st.just(by),
        known=st.sampled_from([frozenset(by), frozenset(by), frozenset(by[1:])]),
        true=st.frozensets(st.sampled_from(by)),
        configured=st.sampled_from([(ChannelName.EMAIL, ChannelName.WEBHOOK), (ChannelName.WEBHOOK,)]),
        fates=st.lists(st.sampled_from(["accepted", "refused", "refused", "lost"]), min_size=1, max_size=4),
    )
)


@dataclass
class Receivers:
    """What was accepted, by channel and alert, in order; of one message that came twice, the first."""

    got: dict[tuple[ChannelName, int], list[Event]] = field(default_factory=lambda: defaultdict(list))
    uids: set[object] = field(default_factory=set)
    lost: set[object] = field(default_factory=set)

    def accept(self, message: Message) -> None:
        if message.message_uid in self.uids:
            assert message.message_uid in self.lost, "sent again though it was known to be accepted"
            return
        self.uids.add(message.message_uid)
        self.got[message.channel, message.alert_id].append(message.event)


def work(queue: Connection, receivers: Receivers, look: Look, now: dt.datetime) -> None:
    for fate in look.fates:
        message = messages.claim_message(queue, look.configured, now, LEASE)
        if message is None:
            return
        if fate == "refused":
            messages.record_failure(queue, message, "no", now + pause_after(message.attempts))
            continue
        receivers.accept(message)
        if fate == "lost":
            receivers.lost.add(message.message_uid)
        else:
            messages.record_delivery(queue, message, now)


def assess(look: Look) -> Assessment:
    return Assessment({alert(kind).key: alert(kind) for kind in look.true & look.known}, look.known)


@pytest.mark.long
@hypothesis.given(looks=st.lists(LOOKS, min_size=3, max_size=10))
@hypothesis.settings(
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_each_alert_is_opened_once_and_resolved_once(queue: Connection, looks: list[Look]) -> None:
    queue.execute("DELETE FROM alerts.alerts")
    receivers, now = Receivers(), BEGIN
    for look in looks:
        now += dt.timedelta(seconds=look.seconds)
        before = {each.alert_id for each in records.read_recorded(queue) if each.kind not in look.known}
        records.evaluate(queue, assess(look), look.configured, now, DAILY, "a test")
        open_keys = [each.key for each in records.read_recorded(queue)]
        assert len(open_keys) == len(set(open_keys))
        # Of what was not observed nothing changes.
        assert before <= {each.alert_id for each in records.read_recorded(queue)}
        for kind in look.known:
            assert (kind in open_keys) == (kind in look.true)
        work(queue, receivers, look, now)
    everything = Look(0, (), frozenset(Kind), frozenset(), tuple(ChannelName), ["accepted"] * 200)
    # In the end all is well, and every receiver is there again.
    for _ in range(3):
        now += dt.timedelta(days=2)
        records.evaluate(queue, assess(everything), everything.configured, now, DAILY, "a test")
        work(queue, receivers, everything, now)
    assert queue.execute("SELECT FROM alerts.messages WHERE delivered_at IS NULL").fetchall() == []
    assert records.read_recorded(queue) == []
    for events in receivers.got.values():
        assert events[0] is Event.OPENED
        assert events[-1] is Event.RESOLVED
        assert set(events[1:-1]) <= {Event.REMINDED}


def test_an_alert_that_stays_open_is_told_again_each_day(queue: Connection) -> None:
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    receivers = Receivers()
    look = Look(0, SENSOR_S, frozenset(), frozenset(), (ChannelName.SLACK,), ["accepted"])
    for hour in range(0, 24 * 3 + 1, 6):
        now = BEGIN + dt.timedelta(hours=hour)
        records.evaluate(queue, held, look.configured, now, DAILY, "a test")
        work(queue, receivers, look, now)
    (events,) = receivers.got.values()
    assert events == [Event.OPENED, *[Event.REMINDED] * 3]


def test_what_ends_within_its_grace_is_told_to_nobody(queue: Connection) -> None:
    away = Assessment({alert(Kind.RESULTS_AWAY).key: alert(Kind.RESULTS_AWAY)}, {Kind.RESULTS_AWAY})
    nothing = Assessment({}, {Kind.RESULTS_AWAY})
    seconds = itertools.accumulate([0, 60, 50, 100, 119, 2])
    for at, assessment, is_open in zip(
        seconds, [away, away, nothing, away, away, away], [0, 0, 0, 0, 0, 1], strict=True
    ):
        now = BEGIN + dt.timedelta(seconds=at)
        records.evaluate(queue, assessment, [ChannelName.EMAIL], now, DAILY, "a test")
        assert len(records.read_open_alerts(queue)) == is_open, at
    assert queue.execute("SELECT event FROM alerts.messages").fetchall() == [("opened",)]


def test_a_channel_that_is_configured_later_is_told_of_what_is_open(queue: Connection) -> None:
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    for channels in ([], [ChannelName.EMAIL], [ChannelName.EMAIL, ChannelName.SLACK]):
        records.evaluate(queue, held, channels, BEGIN, DAILY, "a test")
    found = queue.execute("SELECT channel, event FROM alerts.messages ORDER BY message_id").fetchall()
    assert found == [("email", "opened"), ("slack", "opened")]


def test_a_message_that_is_being_sent_is_left_alone_until_its_lease_ends(queue: Connection) -> None:
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    records.evaluate(queue, held, [ChannelName.SLACK], BEGIN, DAILY, "a test")
    first = messages.claim_message(queue, [ChannelName.SLACK], BEGIN, LEASE)
    assert first is not None
    assert messages.claim_message(queue, [ChannelName.SLACK], BEGIN + LEASE / 2, LEASE) is None
    again = messages.claim_message(queue, [ChannelName.SLACK], BEGIN + LEASE, LEASE)
    assert again is not None
    assert (again.message_uid, again.attempts) == (first.message_uid, 2)
    # The first sender is late: what it has to say about a failure counts no more, that it succeeded does.
    messages.record_failure(queue, first, "no", BEGIN)
    assert messages.claim_message(queue, [ChannelName.SLACK], BEGIN + LEASE, LEASE) is None
    messages.record_delivery(queue, first, BEGIN + LEASE)
    assert messages.claim_message(queue, [ChannelName.SLACK], BEGIN + 9 * LEASE, LEASE) is None


def test_messages_about_an_alert_reach_a_channel_in_their_order(queue: Connection) -> None:
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    records.evaluate(queue, held, [ChannelName.SLACK], BEGIN, DAILY, "a test")
    opened = messages.claim_message(queue, [ChannelName.SLACK], BEGIN, LEASE)
    assert opened is not None
    messages.record_failure(queue, opened, "no", BEGIN + pause_after(1))
    records.evaluate(queue, Assessment({}, {Kind.JOBS_HELD}), [], BEGIN, DAILY, "a test")
    # The second one is due and the first one is not yet: it waits.
    assert messages.claim_message(queue, [ChannelName.SLACK], BEGIN, LEASE) is None
    for event in (Event.OPENED, Event.RESOLVED):
        message = messages.claim_message(queue, [ChannelName.SLACK], BEGIN + pause_after(1), LEASE)
        assert message is not None
        assert message.event is event
        messages.record_delivery(queue, message, BEGIN)


def test_an_alert_has_ended_before_it_is_open_again(queue: Connection) -> None:
    slack = [ChannelName.SLACK]
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    nothing = Assessment({}, {Kind.JOBS_HELD})

    def claim(seconds: float) -> Message:
        message = messages.claim_message(queue, slack, BEGIN + dt.timedelta(seconds=seconds), LEASE)
        assert message is not None
        return message

    records.evaluate(queue, held, slack, BEGIN, DAILY, "a test")
    messages.record_delivery(queue, claim(0), BEGIN)
    records.evaluate(queue, nothing, slack, BEGIN, DAILY, "a test")
    messages.record_failure(queue, claim(0), "no", BEGIN + dt.timedelta(seconds=45))
    records.evaluate(queue, held, slack, BEGIN, DAILY, "a test")
    assert messages.claim_message(queue, slack, BEGIN + dt.timedelta(seconds=30), LEASE) is None
    # Other alerts and other channels are kept back by nothing.
    stalled = Assessment({alert(Kind.DAYS_STALLED).key: alert(Kind.DAYS_STALLED)}, {Kind.DAYS_STALLED})
    records.evaluate(queue, stalled, slack, BEGIN, DAILY, "a test")
    records.evaluate(queue, held, [ChannelName.EMAIL], BEGIN, DAILY, "a test")
    other = claim(30)
    assert (other.key, other.event) == ("days_stalled", Event.OPENED)
    email = messages.claim_message(queue, [ChannelName.EMAIL], BEGIN, LEASE)
    assert email is not None
    assert (email.key, email.event) == ("jobs_held", Event.OPENED)
    for message in (other, email):
        messages.record_delivery(queue, message, BEGIN)
    for event in (Event.RESOLVED, Event.OPENED):
        message = claim(45)
        assert message.event is event
        messages.record_delivery(queue, message, BEGIN)


def test_what_a_receiver_refuses_for_good_keeps_no_later_alert_back_for_ever(queue: Connection) -> None:
    slack = [ChannelName.SLACK]
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    records.evaluate(queue, held, slack, BEGIN, DAILY, "a test")
    records.evaluate(queue, Assessment({}, {Kind.JOBS_HELD}), slack, BEGIN, DAILY, "a test")
    records.evaluate(queue, held, slack, BEGIN, DAILY, "a test")
    seen = []
    for _ in range(messages.PATIENCE + 1):
        message = messages.claim_message(queue, slack, BEGIN, LEASE)
        assert message is not None
        seen.append((message.alert_id, message.event))
        messages.record_failure(
            queue, message, "no", BEGIN + (LEASE if len(seen) >= messages.PATIENCE else LEASE * 0)
        )
    first, last = seen[0], seen[-1]
    assert seen == [first] * messages.PATIENCE + [last]
    assert first[1] is last[1] is Event.OPENED
    assert first[0] < last[0]
    # What follows it about the same alert still waits.
    assert messages.claim_message(queue, slack, BEGIN, LEASE) is None


def test_what_nobody_sends_any_more_alarms_nobody(queue: Connection) -> None:
    now, slack = records.read_clock(queue), [ChannelName.SLACK]
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    records.evaluate(queue, held, slack, now, DAILY, "a test")
    told = messages.claim_message(queue, slack, now, LEASE)
    assert told is not None
    messages.record_delivery(queue, told, now)
    # Slack is taken out of the settings, and the alert ends.
    email = [ChannelName.EMAIL]
    records.evaluate(queue, Assessment({}, {Kind.JOBS_HELD}), email, now, DAILY, "a test")
    figures = records.read_figures(queue, email)
    assert (figures.undelivered, figures.oldest_seconds) == ({}, None)
    # Another process has it still, and tries.
    tried = messages.claim_message(queue, slack, now, LEASE)
    assert tried is not None
    messages.record_failure(queue, tried, "no", now)
    assert records.read_figures(queue, email).undelivered == {"slack": 1}
    queue.execute("UPDATE alerts.messages SET not_before = not_before - %s", [records.TRIED_LATELY])
    assert records.read_figures(queue, email).undelivered == {}
    assert records.read_figures(queue, slack).undelivered == {"slack": 1}


def test_alerts_of_a_kind_that_another_release_knows_are_left_to_it(queue: Connection) -> None:
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    records.evaluate(queue, held, [ChannelName.SLACK], BEGIN, DAILY, "a test")
    queue.execute("UPDATE alerts.alerts SET key = 'new_kind', kind = 'new_kind'")
    assert records.evaluate(queue, Assessment({}, set(Kind)), [], BEGIN, DAILY, "a test") == []
    (known,) = records.read_open_alerts(queue)  # people see it all the same
    assert known.kind == "new_kind"


def test_old_alerts_are_deleted_and_old_messages_given_up(queue: Connection) -> None:
    now = dt.datetime.now(dt.UTC)
    held = Assessment({alert(Kind.JOBS_HELD).key: alert(Kind.JOBS_HELD)}, {Kind.JOBS_HELD})
    nothing = Assessment({}, {Kind.JOBS_HELD})
    for age in (records.KEEP_ENDED * 1.1, records.KEEP_ENDED * 0.9):
        records.evaluate(queue, held, [ChannelName.SLACK], now - age, DAILY, "a test")
        records.evaluate(queue, nothing, [ChannelName.SLACK], now - age, DAILY, "a test")
    records.evaluate(queue, held, [ChannelName.SLACK], now, DAILY, "a test")
    assert records.prune_alerts(queue) == 1
    assert queue.execute("SELECT event FROM alerts.messages").fetchall() == [("opened",)]
    assert len(queue.execute("SELECT FROM alerts.alerts").fetchall()) == 2

"""Planning, work, crashes, late writes, retries, cancelling, publishing in any order, against a model."""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from episodes_assets.errors import EpisodesError
from episodes_assets.ledger.claims import ClaimLost
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.invariants import check, chunks_without_message
from episodes_assets_tests.chaos.model import Input, Job, Model, Refused, Row
from episodes_assets_tests.chaos.real import Attempt, Message, Real
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.support.system import System, day

T = TypeVar("T")
MAX_STARTS = 2
EPIDS = range(1, 8)

days = st.sampled_from([day(number) for number in range(2, 6)])
picks = st.integers(0, 99)
bad_epids = st.frozensets(st.sampled_from(EPIDS), max_size=2)
# Relative to the first day: long ago (such jobs get chunks of their own), lately, and ahead.
offsets = st.sampled_from([-400, -5, -5, 2])
rows = st.builds(
    lambda epid, algorithm_id, premier, start: Row(epid, algorithm_id, day(1 + premier), day(1 + start)),
    st.sampled_from(EPIDS),
    st.integers(0, 1),
    offsets,
    offsets,
)
inputs = st.builds(
    lambda drop, viewed: Input(frozenset(drop), viewed),
    st.lists(rows, min_size=5, max_size=12, unique_by=lambda row: (row.epid, row.algorithm_id)),
    st.frozensets(st.sampled_from(EPIDS), min_size=4),
)
steps = st.sampled_from(["arrive", "take", "refresh", "track", "plan"])
errands = [
    "hand out",
    "retry",
    "waive",
    "cancel",
    "publish",
    "finish and publish",
    "lose a message",
    "delete old input",
    "prune the log",
]
cuts = st.sampled_from(["claim", "start", "write"])


class AnyOrder(RuleBasedStateMachine):
    """The rules; after each, the system holds what the model says."""

    def __init__(self, real: Real) -> None:
        super().__init__()
        self.real = real
        self.model = Model(MAX_STARTS)
        self.attempts: list[tuple[Message, Attempt]] = []
        self.owners: dict[tuple[int, int], Attempt] = {}
        real.forget_everything()

    def both(self, on_model: Callable[[], None], on_real: Callable[[], None]) -> None:
        """Take a step in both; what the model refuses, the system must refuse by name."""
        try:
            on_model()
        except Refused:
            try:
                on_real()
            except EpisodesError:
                return
            raise AssertionError("it should have been refused") from None
        on_real()

    @initialize(contents=st.lists(inputs, min_size=3, max_size=3))
    def run_the_first_days(self, contents: list[Input]) -> None:
        for of, content in zip(map(day, (2, 3, 4)), contents, strict=True):
            self.plan_anew(of, content)
            self.fan_out(of)

    @rule(
        what=st.sampled_from(["the next day", "a day from other input", "a day again", "one step"]),
        of=days,
        step=steps,
        content=inputs,
    )
    def plan(self, what: str, of: dt.date, step: str, content: Input) -> None:
        following = max(self.model.plans) + dt.timedelta(1)
        if what == "one step":
            self.step(of, step, content)
        elif what == "a day again":
            for same in sorted(self.model.plans):
                self.step(same, "track", content)
                self.step(same, "plan", content)
        elif what == "a day from other input" or following > day(5):
            self.plan_anew(of if of in self.model.plans else day(2), content)
            self.step(max(self.model.plans), "plan", content)  # may stand on a past that is no more
        else:
            self.plan_anew(following, content)
            if following in self.model.plans:
                self.fan_out(following)

    def plan_anew(self, of: dt.date, content: Input) -> None:
        for step in ("arrive", "refresh", "track", "plan"):
            self.step(of, step, content)

    def step(self, of: dt.date, step: str, content: Input) -> None:
        if step == "arrive":
            self.model.upstream[of] = content
            self.real.arrive(of, content)
        elif step in {"take", "refresh"}:
            refresh = step == "refresh"
            self.both(
                lambda: self.model.take_snapshot(of, refresh), lambda: self.real.take_snapshot(of, refresh)
            )
        elif step == "track":
            self.both(lambda: self.model.track(of), lambda: self.real.track(of))
        else:
            self.both(lambda: self.model.plan(of), lambda: self.real.plan(of))

    def fan_out(self, of: dt.date) -> None:
        self.model.fan_out(of)
        self.real.fan_out(of)
        assert not chunks_without_message(self.real, of)

    @rule(pick=picks, bad=bad_epids)
    def work(self, pick: int, bad: frozenset[int]) -> None:
        if message := self.some_message(pick):
            self.work_message(message, bad)

    def some_message(self, pick: int) -> Message | None:
        """One of the live messages; when there are none, what is open is handed out first."""
        if not self.real.messages():
            for of in sorted(self.model.plans):
                self.fan_out(of)
        messages = self.real.messages()
        return choose(messages, pick) if messages else None

    def work_message(self, message: Message, bad: frozenset[int]) -> None:
        if found := self.real.jobs_of(message.chunk):
            of, jobs = found
            if self.is_open(of, jobs):
                self.owners.pop(key(message), None)
            self.model.work(of, jobs, bad)
        self.real.work(message, bad)

    @rule(pick=picks, upto=cuts)
    def be_cut_off(self, pick: int, upto: str) -> None:
        if not (message := self.some_message(pick)):
            return
        found = self.real.jobs_of(message.chunk)
        attempt = self.real.begin(message, upto)
        assert (attempt is not None) == (found is not None and self.is_open(*found))
        if attempt is None:
            return
        self.attempts.append((message, attempt))
        self.owners[key(message)] = attempt
        of = attempt.claim.day
        if len(attempt.started) == 1:
            self.model.start_alone(of, job_of(attempt.started[0]))
        if upto == "write":
            self.succeed(message, of, [job_of(job) for job in attempt.started])

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, action=picks)
    def come_back_late(self, pick: int, action: int) -> None:
        message, attempt = choose(self.attempts, pick)
        is_current = self.owners.get(key(message)) is attempt and self.real.jobs_of(message.chunk) is not None
        of, jobs = attempt.claim.day, [job_of(job) for job in attempt.unwritten]
        possible = ["give back"]
        if jobs:
            possible = (
                ["write"] * 3 + (["fail"] * 3 if len(jobs) == 1 else []) if attempt.started else ["start"]
            )
        what = choose(possible, action)
        if what == "give back":
            self.real.give_back(attempt)
            if is_current:
                del self.owners[key(message)]
        elif what == "start":
            if self.late(is_current, lambda: self.real.count_start(attempt)) and len(jobs) == 1:
                self.model.start_alone(of, jobs[0])
        elif what == "write":
            if self.late(is_current, lambda: self.real.write(attempt)):
                self.succeed(message, of, jobs)
        elif self.late(is_current, lambda: self.real.fail(attempt)):
            self.model.fail(of, jobs[0])

    @rule(pick=picks, upto=cuts, bad=bad_epids, action=picks)
    def be_overtaken(self, pick: int, upto: str, bad: frozenset[int], action: int) -> None:
        before = len(self.attempts)
        self.be_cut_off(pick, upto)
        if len(self.attempts) > before:
            self.work_message(self.attempts[-1][0], bad)
            self.come_back_late(before, action)

    @rule(pick=picks, upto=cuts, action=picks)
    def be_cancelled(self, pick: int, upto: str, action: int) -> None:
        before = len(self.attempts)
        self.be_cut_off(pick, upto)
        if len(self.attempts) > before:
            self.cancel(self.attempts[-1][1].claim.day)
            self.come_back_late(before, action)

    def late(self, is_current: bool, act: Callable[[], None]) -> bool:
        """Let an attempt go on: it may under the current claim, and under no other."""
        try:
            act()
        except ClaimLost:
            assert not is_current, "the current claim was refused"
            return False
        assert is_current, "a claim that was lost still wrote"
        return True

    def succeed(self, message: Message, of: dt.date, jobs: Sequence[Job]) -> None:
        self.model.plans[of].states.update(dict.fromkeys(jobs, "succeeded"))
        found = self.real.jobs_of(message.chunk)
        if found and not self.is_open(*found):
            self.owners.pop(key(message), None)

    @rule(what=st.sampled_from(errands), pick=picks)
    def run_an_errand(self, what: str, pick: int) -> None:
        of = choose(sorted(self.model.plans), pick)
        messages = self.real.messages()
        if what == "hand out":
            self.fan_out(of)
        elif what == "retry":
            self.retry(of)
        elif what == "waive":
            self.both(lambda: self.model.waive(of), lambda: self.real.waive(of))
        elif what == "cancel":
            self.cancel(of)
        elif what == "publish":
            self.both(lambda: self.model.publish(of), lambda: self.real.publish(of))
        elif what == "finish and publish":
            self.finish_and_publish(of)
        elif what == "lose a message" and messages:
            self.real.lose(choose(messages, pick))
        elif what == "delete old input":
            self.model.delete_upstream(of)
            self.real.delete_upstream(day(1), of)
        else:
            self.real.prune()

    def cancel(self, of: dt.date) -> None:
        unfinished = {message.id for message in self.real.messages() if self.is_unfinished(message, of)}
        self.both(lambda: self.model.cancel(of), lambda: self.real.cancel(of))
        for chunk in [chunk for chunk, attempt in self.owners.items() if attempt.claim.day == of]:
            del self.owners[chunk]
        assert not unfinished & {message.id for message in self.real.messages()}

    def is_unfinished(self, message: Message, of: dt.date) -> bool:
        found = self.real.jobs_of(message.chunk)
        return found is not None and found[0] == of and self.is_open(*found)

    def retry(self, of: dt.date) -> None:
        self.model.retry(of)
        self.real.retry(of)
        assert not chunks_without_message(self.real, of)

    def finish_and_publish(self, of: dt.date) -> None:
        self.retry(of)
        for message in self.real.messages():
            found = self.real.jobs_of(message.chunk)
            if found and found[0] == of:
                self.work_message(message, frozenset())
        self.both(lambda: self.model.publish(of), lambda: self.real.publish(of))

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        check(self.real, self.model)
        self.real.checks += 1

    def is_open(self, of: dt.date, jobs: Sequence[Job]) -> bool:
        return any(self.model.plans[of].states[job] == "open" for job in jobs)


def choose(among: Sequence[T], pick: int) -> T:
    return among[pick % len(among)]


def key(message: Message) -> tuple[int, int]:
    return message.chunk.plan_id, message.chunk.chunk


def job_of(job: Any) -> Job:
    return job.epid, job.algorithm_id, job.window_start


@pytest.mark.slow
def test_any_order_of_steps(system: System, chaos: Chaos) -> None:
    steps = 30
    examples = chaos.pick(short=12, long=200)
    real = Real(system, MAX_STARTS)
    try:
        with chaos.attack(Promise.ORDER, f"random steps, up to {steps} in each history") as attack:
            run_state_machine_as_test(
                cast("Any", seed(chaos.seed)(lambda: AnyOrder(real))),  # a function will do
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    database=None,
                    # Shrinking a failure to its shortest history takes minutes.
                    phases=chaos.pick(short=[Phase.generate], long=[Phase.generate, Phase.shrink]),
                    suppress_health_check=list(HealthCheck),
                ),
            )
            attack.times = real.checks
    finally:
        real.close()

"""The rule of waiting, as laws."""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from episodes_assets.accounts.throttle import FORGOTTEN_AFTER_SECONDS, LONGEST_SECONDS, Attempts, Backoff

FREE = st.integers(1, 30)
FAILURES = st.integers(0, 10_000)
AGO = st.floats(0, 2 * FORGOTTEN_AFTER_SECONDS)


@given(FREE, FAILURES, AGO)
def test_nobody_waits_longer_than_a_quarter_of_an_hour(free: int, failures: int, ago: float) -> None:
    left = Backoff(free).seconds_left(Attempts(failures, ago))
    assert 0 <= left <= max(0.0, LONGEST_SECONDS - ago)
    if failures < free:
        assert left == 0


@given(FREE, FAILURES, AGO, AGO)
def test_more_failures_never_wait_less_and_time_only_helps(
    free: int, failures: int, ago: float, later: float
) -> None:
    rule = Backoff(free)
    left = rule.seconds_left(Attempts(failures, ago))
    assert rule.seconds_left(Attempts(failures + 1, ago)) >= left
    assert rule.seconds_left(Attempts(failures, ago + later)) <= left


@given(st.integers(1, 10), st.lists(st.floats(0, 2_000), max_size=60))
@example(5, [0.0] * 60)
@example(1, [2.0**n for n in range(11)])
def test_guesses_cost_time_however_they_are_spaced(free: int, gaps: Sequence[float]) -> None:
    """Of everything that was tried, no more got through than the waits in between allow."""
    rule, attempts, passed, elapsed = Backoff(free), Attempts(0, 0.0), 0, 0.0
    for gap in gaps:
        elapsed += gap
        attempts = Attempts(attempts.failures, attempts.seconds_ago + gap)
        if rule.seconds_left(attempts) == 0:
            attempts = Attempts(rule.counted(attempts), 0.0)
            passed += 1
    least = sum(min(LONGEST_SECONDS, 2.0**n) for n in range(passed - free))
    assert elapsed >= least * (1 - 1e-9)


@given(FREE, st.floats(0, 1_000))
def test_who_waits_as_told_is_let_through(free: int, ago: float) -> None:
    """So a lock ends, however often it is asked in between."""
    rule = Backoff(free)
    for failures in range(free + 15):
        left = rule.seconds_left(Attempts(failures, ago))
        assert rule.seconds_left(Attempts(failures, ago + left)) < 1e-6


@given(FREE, FAILURES, AGO, AGO)
def test_failures_fade_where_the_rule_says_so(free: int, failures: int, ago: float, later: float) -> None:
    rule = Backoff(free, halved_after_seconds=3_600)
    counted = rule.counted(Attempts(failures, ago))
    assert rule.counted(Attempts(failures, 0)) == failures + 1
    assert rule.counted(Attempts(failures, ago + later)) <= counted <= failures + 1
    assert rule.counted(Attempts(failures, 3_600)) == (failures + 1) // 2 + 1


@given(FREE, FAILURES)
def test_a_quiet_day_forgets(free: int, failures: int) -> None:
    old = Attempts(failures, FORGOTTEN_AFTER_SECONDS)
    assert Backoff(free).seconds_left(old) == 0
    assert Backoff(free).counted(old) == 1

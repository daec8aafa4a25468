"""The gate of slow planning: seconds against what planning has taken before.

In the system this replaces the step that plans a day came to take over an hour, and nobody was told
before it ran into its time limit.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.gates.bands import HISTORY_DAYS, LEAST_HISTORY, NOT_ENOUGH
from episodes_assets.gates.verdicts import Number, Verdict

PLANNING_IS_AS_FAST_AS_USUAL = "planning_is_as_fast_as_usual"

FAR_SLOWER = 5.0
# Nobody waits for a step of a few seconds, and small ones vary by more than any factor.
NEVER_SLOW_SECONDS = 5.0


@dataclass(frozen=True)
class Planning:
    """A step that planned some days.

    Attributes:
        days: How many.
        rows: Catalogue rows of all of them.
        seconds: What it took.
    """

    days: int
    rows: int
    seconds: float


def usual_seconds(days: int, rows: int, history: Sequence[Planning]) -> float | None:
    """What planning is to take, by what it took before.

    Each earlier step says what a day took; more rows a day may take longer in proportion, fewer need not
    take less, because a step has costs of its own.

    Args:
        days: Days to plan.
        rows: Catalogue rows of all of them.
        history: Earlier steps, the latest first.

    Returns:
        Seconds; None when fewer than `LEAST_HISTORY` steps cannot say.
    """
    recent = history[:HISTORY_DAYS]
    if len(recent) < LEAST_HISTORY:
        return None
    return days * statistics.median(
        each.seconds / each.days * max(1.0, (rows / days) / max(each.rows / each.days, 1.0))
        for each in recent
    )


def slow_after(days: int, rows: int, history: Sequence[Planning]) -> float | None:
    """The seconds after which a planning step is far slower than usual; None without enough history."""
    usual = usual_seconds(days, rows, history)
    return None if usual is None else max(NEVER_SLOW_SECONDS, FAR_SLOWER * usual)


def describe_slow(limit: float, *, seconds: float, usual: float, is_running: bool) -> str:
    """What to say of a planning step that is far slower than usual."""
    so_far = "has taken" if is_running else "took"
    return (
        f"planning {so_far} {seconds:,.1f} s, its history says {usual:,.1f} s and at most {limit:,.1f} s: "
        "look for a lock or a busy server (pg_stat_activity of the queue and results databases) and for a "
        "change of the planning code (`make bench` measures it)"
    )


def planning_is_as_fast_as_usual(step: Planning, history: Sequence[Planning]) -> Verdict:
    """Whether a planning step took about what its history says; a warning if it was far slower.

    Args:
        step: The step.
        history: Earlier ones, the latest first.
    """
    usual = usual_seconds(step.days, step.rows, history)
    limit = slow_after(step.days, step.rows, history)
    facts: dict[str, Number] = {"seconds": step.seconds, "days": step.days, "rows": step.rows}
    if usual is None or limit is None:
        facts["history"] = NOT_ENOUGH
        return Verdict(
            PLANNING_IS_AS_FAST_AS_USUAL, passed=True, message=NOT_ENOUGH, facts=facts, is_error=False
        )
    facts |= {"usual seconds": round(usual, 3), "slow after seconds": round(limit, 3)}
    is_slow = step.seconds > limit
    return Verdict(
        PLANNING_IS_AS_FAST_AS_USUAL,
        passed=not is_slow,
        message=describe_slow(limit, seconds=step.seconds, usual=usual, is_running=False)
        if is_slow
        else "as it should be",
        facts=facts,
        is_error=False,
    )

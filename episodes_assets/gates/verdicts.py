"""What a gate says: of many days at once, in numbers and in one plain line."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Number = int | float | str
DAYS_NAMED = 3


@dataclass(frozen=True)
class Verdict:
    """A gate's word on the days of a step.

    Attributes:
        gate: Its name, which is the asset check's.
        passed: Whether all days are as they should be.
        message: What was found and, if it failed, what to do.
        facts: The numbers behind it, by what a person would call them.
        offending: A row for each day that is not as it should be, `day` first.
        is_error: Whether a failure is one; else it is a warning.
    """

    gate: str
    passed: bool
    message: str
    facts: Mapping[str, Number] = field(default_factory=dict)
    offending: Sequence[Mapping[str, object]] = ()
    is_error: bool = True

    @property
    def closes(self) -> bool:
        """Whether nothing may be built on these days."""
        return not self.passed and self.is_error


def judge_days(
    gate: str,
    offending: Sequence[Mapping[str, object]],
    *,
    fault: str,
    mend: str,
    facts: Mapping[str, Number],
    is_error: bool = True,
) -> Verdict:
    """The verdict of a gate that looks at each day by itself.

    Args:
        gate: Its name.
        offending: A row for each day that is not as it should be, `day` first.
        fault: What is wrong with them, as a clause that the days are put after.
        mend: What to do, as a clause; `{day}` stands for the first of them.
        facts: The numbers behind it.
        is_error: Whether a failure is one; else it is a warning.
    """
    if not offending:
        return Verdict(gate, passed=True, message="as it should be", facts=facts, is_error=is_error)
    days = [str(row["day"]) for row in offending]
    message = f"{fault} on {name_days(days)}: {mend.format(day=days[0])}"
    return Verdict(gate, passed=False, message=message, facts=facts, offending=offending, is_error=is_error)


def name_days(days: Sequence[str] | Sequence[dt.date]) -> str:
    """Some days in a sentence, the first few by name."""
    named = ", ".join(str(day) for day in days[:DAYS_NAMED])
    more = len(days) - DAYS_NAMED
    return f"{named} and {more:,} more days" if more > 0 else named

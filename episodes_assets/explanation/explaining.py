"""From a question about a day and an episode to its answer.

The terminal (`cli/explain.py`) and the dashboard (`dashboard/explain.py`) read the question and show the same
`Explanation`: the cause in one sentence, what can be done, and what is on record. Which cause it is, is
concluded in `diagnosis`; the words for what is on record are `facts`.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.algorithms.registry import Registry, get_registry
from episodes_assets.errors import BadQuestion
from episodes_assets.explanation.causes import Cause
from episodes_assets.explanation.diagnosis import decide
from episodes_assets.explanation.facts import Facts
from episodes_assets.explanation.records import Records

_BIGINT = 2**63


@dataclass(frozen=True)
class Section:
    """What one kind of record says.

    Attributes:
        title: The kind, in a word.
        lines: What it says.
    """

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Why one row is there, or is not.

    Attributes:
        day: The day.
        epid: The episode.
        algorithm_id: The analysis; None where no record names any.
        algorithm: What people call it; empty where no record names any.
        cause: Why.
        answer: The same as a sentence about this row, without a full stop.
        hint: What can be done; empty where there is nothing to do.
        sections: What the records say, in the order in which a row passes them.
    """

    day: dt.date
    epid: int
    algorithm_id: int | None
    algorithm: str
    cause: Cause
    answer: str
    hint: str
    sections: tuple[Section, ...]


def parse_epid(text: str) -> int:
    """Read the id of an episode.

    Raises:
        BadQuestion: If it is no whole number of 64 bits.
    """
    return _parse_number(text, "an episode's id", "it is a whole number of 64 bits, such as 42")


def parse_algorithm(text: str) -> int:
    """Read an algorithm, by its name or its number; a number need not be known.

    Raises:
        BadQuestion: If it is neither the name of one nor a number that a catalogue row can hold.
    """
    registry = get_registry()
    named = {each.name: algorithm_id for algorithm_id, each in registry.by_id.items()}
    if text in named:
        return named[text]
    known = ", ".join(f"{name} ({algorithm_id})" for name, algorithm_id in named.items())
    return _parse_number(text, "an algorithm", f"choose one of {known}")


def _parse_number(text: str, what: str, hint: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and -_BIGINT <= int(text) < _BIGINT):
        raise BadQuestion(f"{text!r} is not {what}", hint)
    return int(text)


def explain(records: Records, algorithm_id: int | None = None) -> list[Explanation]:
    """Why the rows of an episode are there, or are not.

    Args:
        records: What is on record of it.
        algorithm_id: Only this analysis; by default each that any of the records names.

    Returns:
        One for each analysis; just one where no record names any.
    """
    asked: Sequence[int | None] = (
        [algorithm_id] if algorithm_id is not None else records.algorithm_ids or [None]
    )
    registry = get_registry()
    return [_explain_one(records, each, registry) for each in asked]


def _explain_one(records: Records, algorithm_id: int | None, registry: Registry) -> Explanation:
    cause = decide(records, algorithm_id)
    said = Facts(records, algorithm_id, registry)
    return Explanation(
        day=records.day,
        epid=records.epid,
        algorithm_id=algorithm_id,
        algorithm=said.algorithm,
        cause=cause,
        answer=cause.answer.format_map(said.names()),
        hint=cause.hint.format(day=records.day),
        sections=tuple(Section(title, lines) for title, lines in said.sections() if lines),
    )

"""Whatever is logged, no line of the log is made by somebody else."""

import logging

from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.cli.console import OneLine

FORMATTER = OneLine("%(levelname)s %(message)s")


def logged(text: str, *, is_raised: bool) -> list[str]:
    raised = None
    if is_raised:
        try:
            int("no number")
        except ValueError as error:
            raised = (SystemError, SystemError(text), error.__traceback__)
    record = logging.LogRecord("any", logging.INFO, "any.py", 1, "login by %s", (text,), raised)
    return FORMATTER.format(record).splitlines()


@given(st.text(), st.booleans())
def test_an_event_is_one_line_and_its_traceback_indented(text: str, is_raised: bool) -> None:
    first, *others = logged(text, is_raised=is_raised)
    assert first.startswith("INFO login by ")
    assert first.isprintable()
    assert bool(others) is is_raised
    assert all(line.startswith("  ") and line.isprintable() for line in others)


def test_names_of_all_languages_stay_readable() -> None:
    assert logged("Zoë\nINFO login by root\x1b[2J", is_raised=False) == [
        r"INFO login by Zoë\nINFO login by root\x1b[2J"
    ]

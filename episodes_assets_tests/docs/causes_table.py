"""The table in `docs/explain.md` from the list of causes, which `make docs` writes.

What is said of a cause is in `episodes_assets/explanation/causes.py`.
"""

import re
import sys
from pathlib import Path

from episodes_assets.explanation.causes import Cause

BEGIN, END = "<!-- causes -->", "<!-- end of causes -->"
COLUMNS = ("the answer", "the row is there", "when", "what can be done")


def main(path: str) -> None:
    """Write the table into the page."""
    page = Path(path)
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(page: str) -> str:
    """The page with the table as it is to be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{causes_table()}\n{END}{after}"


def causes_table() -> str:
    """A line for each cause."""
    rows = [
        (each.label, "yes" if each.is_there else "no", each.when, _for_a_day(each.hint) or "nothing")
        for each in Cause
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [COLUMNS, ["---"] * len(COLUMNS), *rows])


def _for_a_day(hint: str) -> str:
    return re.sub(r"\{day\}", "DAY", hint)


if __name__ == "__main__":
    main(*sys.argv[1:])
